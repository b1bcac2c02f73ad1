/** Reads CSV as RFC 4180 has it. Knows records and fields, not what they mean. */

/** One record and the line on which it starts, counted from 1. */
export interface CsvRecord {
  readonly fields: readonly string[];
  readonly line: number;
}

/** What broke the format, and where. */
export interface CsvFault {
  readonly line: number;
  readonly column: number;
  readonly expected: string;
  readonly received: string;
}

/**
 * Records of a CSV text: fields separated by commas, in double quotes where they hold commas, quotes (doubled) or line
 * ends. LF and CRLF both end a record. Source: RFC 4180, §2.
 *
 * @returns the records, or the first fault
 */
export function parseCsv(text: string): readonly CsvRecord[] | CsvFault {
  const records: CsvRecord[] = [];
  let at = 0;
  let line = 1;
  let lineStart = 0;
  const fault = (expected: string): CsvFault => ({
    line,
    column: at - lineStart + 1,
    expected,
    received: at < text.length ? JSON.stringify(text[at]) : 'the end of the file',
  });

  while (at < text.length) {
    const fields: string[] = [];
    const startLine = line;
    for (;;) {
      if (text[at] === '"') {
        let field = '';
        at++;
        for (;;) {
          const quote = text.indexOf('"', at);
          const end = quote === -1 ? text.length : quote;
          for (let n = text.indexOf('\n', at); n !== -1 && n < end; n = text.indexOf('\n', n + 1)) {
            line++;
            lineStart = n + 1;
          }
          field += text.slice(at, end);
          at = end;
          if (quote === -1) return fault('a closing double quote');
          at++;
          if (text[at] !== '"') break;
          field += '"';
          at++;
        }
        fields.push(field);
        if (at < text.length && !/^(?:,|\r?\n)/.test(text.slice(at, at + 2))) {
          return fault('a comma or the end of the line after a closing double quote');
        }
      } else {
        const rest = /[^,\r\n"]*/y;
        rest.lastIndex = at;
        const field = rest.exec(text)?.[0] ?? '';
        at += field.length;
        if (text[at] === '"') return fault('quotes only around a whole field');
        if (text[at] === '\r' && text[at + 1] !== '\n')
          return fault('a line feed after a carriage return');
        fields.push(field);
      }
      if (text[at] !== ',') break;
      at++;
    }
    records.push({ fields, line: startLine });
    at += text[at] === '\r' ? 2 : 1;
    line++;
    lineStart = at;
  }
  return records;
}
