// Shows one operation of the contract: its parameters, bodies, answers and examples.

import { element } from './element.js';
import { inline, markdown } from './markdown.js';
import { schemaView, unfold } from './docs_schema.js';

/** @param {{id: string, method: string, path: string, operation: object, parameters: object[]}} entry */
export function operationView(contract, { id, method, path, operation, parameters }) {
  return element(
    'article', { id, class: 'operation', 'aria-labelledby': `${id}-title`, tabindex: -1 },
    element('h3', { id: `${id}-title` }, operation.summary ?? id),
    element('p', { class: 'address' }, element('span', { class: `method ${method}` }, method.toUpperCase()), ' ', element('code', {}, path)),
    ...markdown(operation.description),
    ...part('Parameters', parameters.map((parameter) => parameterView(contract, parameter))),
    ...bodyView(contract, operation.requestBody),
    ...part('Answers', Object.entries(operation.responses ?? {}).map(([status, answer]) => answerView(contract, status, answer))),
  );
}

function part(title, rows) {
  return rows.length > 0 ? [element('h4', {}, title), element('div', { class: 'fields' }, ...rows)] : [];
}

function parameterView(contract, parameter) {
  const { value } = contract.read(parameter);
  const { name, in: place, required, schema = {}, description, example } = value;
  return element(
    'div', { class: 'schema-field' },
    element(
      'div', { class: 'field-head' }, element('code', { class: 'field-name' }, name), element('span', { class: 'place' }, place),
      ...(required ? [element('span', { class: 'required' }, 'required')] : []),
    ),
    ...(description ? [element('div', { class: 'field-text' }, ...markdown(description))] : []),
    schemaView(contract, schema),
    ...(example === undefined ? [] : [element('p', { class: 'note' }, 'Example: ', element('code', {}, String(example)))]),
  );
}

function bodyView(contract, body) {
  if (!body) return [];
  const { value } = contract.read(body);
  return [element('h4', {}, 'Body'), ...markdown(value.description), ...contentViews(contract, value.content)];
}

function answerView(contract, status, answer) {
  const { value } = contract.read(answer);
  const [first = '', ...rest] = (value.description ?? '').trim().split(/\n\s*\n/);
  const head = [element('span', { class: `status-code of-${status[0]}` }, status), element('span', { class: 'answer-text' }, ...inline(first.replace(/\s+/g, ' ')))];
  const headers = Object.entries(value.headers ?? {});
  if (!value.content && headers.length === 0 && rest.length === 0) return element('div', { class: 'schema-field' }, element('div', { class: 'field-head' }, ...head));
  return element('div', { class: 'schema-field' }, unfold(head, () => [
    ...markdown(rest.join('\n\n')), ...headers.map(([name, header]) => headerView(contract, name, header)), ...contentViews(contract, value.content),
  ]));
}

function headerView(contract, name, header) {
  const { value } = contract.read(header);
  const text = value.description ? [': ', ...inline(value.description.replace(/\s+/g, ' '))] : [];
  return element('p', {}, 'Header ', element('code', {}, name), ...text);
}

function contentViews(contract, content = {}) {
  return Object.entries(content).map(([type, { schema, example, examples = {} }]) => {
    const all = example === undefined ? Object.entries(examples) : [['example', { value: example }]];
    return element(
      'div', { class: 'content' }, element('p', {}, element('code', { class: 'media' }, type)), ...(schema ? [schemaView(contract, schema)] : []),
      ...all.map(([name, one]) => {
        const { value: { summary, value } } = contract.read(one);
        const text = typeof value === 'string' ? value : JSON.stringify(value, null, 2);
        return unfold([`Example: ${summary ?? name}`], () => [element('pre', { class: 'code', tabindex: 0, 'aria-label': `Example: ${summary ?? name}` }, element('code', {}, text ?? ''))]);
      }),
    );
  });
}
