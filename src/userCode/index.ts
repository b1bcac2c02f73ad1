/** What users write and posttrain runs: loading their files, calling their functions. Text and plain values only. */
export { callEach, type Called, type CallEachOptions } from './callEach.js';
export {
  importUserModule,
  type ImportUserModuleOptions,
  type UserModule,
} from './importUserModule.js';
