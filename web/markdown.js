// Shows the Markdown of the contract: paragraphs, lists, tables, code, emphasis and links. Texts are never parsed as HTML.

import { element } from './element.js';

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\(([^)\s]+)\)/g;

/** @returns {HTMLElement[]} */
export function markdown(text) {
  const blocks = (text ?? '').trim().split(/\n\s*\n/).filter(Boolean);
  return blocks.map((block) => {
    const lines = block.split('\n');
    if (lines.length > 1 && /^\s*\|/.test(lines[0]) && /^[\s|:-]+$/.test(lines[1])) return table(lines);
    if (/^\s*[-*] /.test(lines[0])) return list(block);
    return element('p', {}, ...inline(lines.join(' ')));
  });
}

/** The nodes of a text within a line. */
export function inline(text) {
  const nodes = [];
  let at = 0;
  for (const found of text.matchAll(INLINE)) {
    nodes.push(text.slice(at, found.index));
    at = found.index + found[0].length;
    const [, code, strong, emphasis, label, href] = found;
    if (code) nodes.push(element('code', {}, code));
    else if (strong) nodes.push(element('strong', {}, ...inline(strong)));
    else if (emphasis) nodes.push(element('em', {}, emphasis));
    else if (/^(https?:\/\/|#)/.test(href)) nodes.push(element('a', { href, rel: 'noreferrer' }, label));
    else nodes.push(label);
  }
  return [...nodes, text.slice(at)].filter((node) => node !== '');
}

function list(block) {
  const items = block.split(/^\s*[-*] /m).slice(1);
  return element('ul', {}, ...items.map((item) => element('li', {}, ...inline(item.replace(/\s*\n\s*/g, ' ').trim()))));
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, '').split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll('\\|', '|'));
  const row = (tag, line) => element('tr', {}, ...cells(line).map((cell) => element(tag, {}, ...inline(cell))));
  const body = element('table', {}, element('thead', {}, row('th', lines[0])), element('tbody', {}, ...lines.slice(2).map((line) => row('td', line))));
  return element('div', { class: 'wide', tabindex: 0, role: 'group', 'aria-label': 'Table' }, body);
}
