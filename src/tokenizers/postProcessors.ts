/** Which special tokens stand around a text's ids. */
import { CheckpointError } from '../errors/index.js';
import { Component, isCount, written } from './component.js';
import { isJsonObject } from './files.js';

/** A text's ids, with what the tokenizer puts around them. */
export type PostProcessor = (ids: readonly number[]) => number[];

/**
 * The post-processor of a tokenizer.json, for single texts.
 *
 * @throws CheckpointError if its type is unknown or a field is wrong
 */
export function createPostProcessor(value: unknown): PostProcessor {
  if (value === null || value === undefined) return (ids) => [...ids];
  const component = new Component('post_processor', value);
  switch (component.type) {
    case 'Sequence': {
      const parts = component.list('processors').map(createPostProcessor);
      return (ids) => parts.reduce((result, process) => process(result), [...ids]);
    }
    case 'ByteLevel':
      return (ids) => [...ids]; // it concerns offsets, which are not kept
    case 'BertProcessing':
    case 'RobertaProcessing': {
      const [cls, sep] = [edgeToken(component, 'cls'), edgeToken(component, 'sep')];
      return (ids) => [cls, ...ids, sep];
    }
    case 'TemplateProcessing':
      return template(component);
    default:
      throw component.unknown();
  }
}

/** A field such as `["[SEP]", 102]`. */
function edgeToken(component: Component, field: string): number {
  const [token, id] = component.list(field);
  if (typeof token !== 'string' || !isCount(id)) throw component.wrong(field, 'a token and its id');
  return id;
}

function template(component: Component): PostProcessor {
  const special = component.fields['special_tokens'] ?? {};
  if (!isJsonObject(special)) throw component.wrong('special_tokens', 'an object');
  const idsOf = (name: string): readonly number[] => {
    const entry = special[name];
    const ids: unknown = isJsonObject(entry) ? entry['ids'] : undefined;
    if (Array.isArray(ids) && ids.every(isCount)) return ids;
    throw new CheckpointError(
      `its post_processor TemplateProcessing has the special token ${JSON.stringify(name)} without ids: ${written(entry)}`,
    );
  };
  // null stands for the text.
  const items = component.list('single').map((item) => {
    const token = isJsonObject(item) ? item['SpecialToken'] : undefined;
    if (isJsonObject(token) && typeof token['id'] === 'string') return idsOf(token['id']);
    if (isJsonObject(item) && isJsonObject(item['Sequence'])) return null;
    throw component.wrong('single', 'a list of SpecialToken and Sequence');
  });
  return (ids) => items.flatMap((item) => item ?? ids);
}
