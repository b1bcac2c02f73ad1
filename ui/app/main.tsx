import { render } from 'preact';
import '../styles/base.css';
import { listen } from './api.js';
import { Page } from './page.js';
import { applyTheme } from './theme.js';

applyTheme();
listen();
const app = document.getElementById('app');
if (app !== null) render(<Page />, app);
