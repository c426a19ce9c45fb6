// The API reference: reads the contract from the server and shows it, with a search.

import { Contract } from './docs_schema.js';
import { operationView } from './docs_operation.js';
import { element } from './element.js';
import { markdown } from './markdown.js';

const METHODS = ['get', 'put', 'post', 'delete', 'patch', 'head', 'options'];

const at = (id) => document.getElementById(id);

/** All operations with the parameters of their paths. */
function operations(contract) {
  return Object.entries(contract.document.paths).flatMap(([path, item]) => METHODS.filter((method) => item[method]).map((method) => {
    const operation = item[method];
    return { id: operation.operationId, method, path, operation, parameters: [...(item.parameters ?? []), ...(operation.parameters ?? [])] };
  }));
}

function show(contract) {
  const { info, tags } = contract.document;
  at('version').textContent = info.version;
  const all = operations(contract);
  const groups = tags.map(({ name, description }) => {
    const entries = all.filter(({ operation }) => operation.tags?.[0] === name);
    const links = entries.map((entry) => element('a', { href: `#${entry.id}` }, element('span', { class: `method ${entry.method}` }, entry.method.toUpperCase()), ' ', entry.operation.summary ?? entry.path));
    const views = entries.map((entry) => operationView(contract, entry));
    return {
      entries, links, views,
      index: element('div', {}, element('p', { class: 'index-title' }, name), ...links),
      section: element('section', { class: 'group', 'aria-label': name }, element('h2', {}, name[0].toUpperCase() + name.slice(1)), ...markdown(description), ...views),
    };
  });
  at('index').append(...groups.map(({ index }) => index));
  const about = element('section', { class: 'group' }, element('h2', {}, info.summary ?? info.title), ...markdown(info.description));
  at('reference').append(about, ...groups.map(({ section }) => section));

  const find = () => {
    const words = at('find').value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const { entries, links, views, index, section } of groups) {
      let found = 0;
      for (const [place, { id, path, method, operation, parameters }] of entries.entries()) {
        const names = parameters.map((parameter) => contract.read(parameter).value.name);
        const text = [id, path, method, operation.summary, operation.description, operation.tags, names].join(' ').toLowerCase();
        const hidden = !words.every((word) => text.includes(word));
        links[place].hidden = views[place].hidden = hidden;
        if (!hidden) found += 1;
      }
      index.hidden = section.hidden = found === 0;
      count += found;
    }
    about.hidden = words.length > 0;
    at('found').textContent = words.length > 0 ? `${count} of ${all.length} operations` : `${all.length} operations`;
  };
  at('find').addEventListener('input', find);
  find();
  go();
}

/** Goes to the operation in the address. */
function go() {
  const target = at(decodeURIComponent(location.hash.slice(1)));
  target?.scrollIntoView();
  target?.focus({ preventScroll: true });
}

addEventListener('hashchange', go);
try {
  const answer = await fetch('openapi.json');
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  show(new Contract(await answer.json()));
} catch (error) {
  at('reference').replaceChildren(element('p', { class: 'banner', role: 'alert' }, `The contract cannot be read: ${error.message}`));
}
