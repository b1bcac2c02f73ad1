/** A style sheet, which Vite takes out of the script. */
declare module '*.css';
