// What the embedded model knows: a list to search, and the nearest known thing for other prompts.

import { openDialog } from './dialog.js';
import { element } from './element.js';

/** Words that name no thing: of the grammar of the model's captions. */
const PLAIN = new Set((
  'a an the of on in at with and or from by to for my your his her its this that these some any one two three four pair couple '
  + 'red orange yellow green blue purple pink brown black white grey gray teal golden silver light dark background ground style noto '
  + 'fluent 3d emoji picture drawing image photo photograph icon illustration painting render sticker cute nice beautiful funny lovely simple '
  + 'single shiny pretty small little big large tiny huge happy beside above below under next over'
).split(' '));
/** Names from this length on may be misspelled by two letters, those from the other length on by one letter. */
const LONG = 8;
const SHORTEST = 4;

let reading;

/** Whether there is a list for a model. */
export const knowsAbout = (model) => model === 'emoji';

/**
 * The things, and words that are spelled almost like a name, but mean something else. `words` of a thing are other words
 * for it, with the similarity of their encodings in percent.
 * @returns {Promise<{things: {emoji: string, names: string[], group: string, words: Object<string, number>}[], others: string}>}
 */
export function read() {
  reading ??= fetch('known.json').then((answer) => answer.json());
  reading.catch(() => { reading = undefined; });
  return reading;
}

/**
 * What a prompt means to the model: `known` if it has a word of a name, otherwise the nearest thing, if there is one.
 * @returns {{known: boolean, nearest?: object}}
 */
export function understand(prompt, { things, others }) {
  const words = prompt.toLowerCase().replace(/<[^>]*>/g, ' ').match(/[a-z0-9]+/g) ?? [];
  const said = words.filter((word) => !PLAIN.has(word) && word.length > 2);
  if (said.length === 0) return { known: true };
  // A word that is the whole name of a thing stands for this thing, and not for one that has it in a longer name.
  const ofNames = things.flatMap((thing) => thing.names.flatMap((name) => name.split(/[ -]/).map((word) => [word, thing])));
  const known = new Map([...ofNames, ...things.flatMap((thing) => thing.names.map((name) => [name, thing]))]);
  if (said.some((word) => forms(word).some((form) => known.has(form)))) return { known: true };
  const meant = things.map((thing) => [thing, Math.max(...said.flatMap(forms).map((form) => (Object.hasOwn(thing.words, form) ? thing.words[form] : 0)))]);
  const [nearest, similarity] = meant.reduce((best, one) => (one[1] > best[1] ? one : best), [null, 0]);
  return { known: false, nearest: similarity > 0 ? nearest : misspelled(said, known, others.split(' ')) };
}

/** A word as it is, and without the endings of a plural. */
const forms = (word) => [word, word.replace(/ies$/, 'y'), word.replace(/es$/, ''), word.replace(/s$/, ''), word.replace(/ves$/, 'f')];

/** The thing of which one of the words is probably a misspelled name; undefined if there is none. */
function misspelled(said, known, others) {
  for (const word of said.filter((word) => !others.includes(word))) {
    for (const [name, thing] of known) {
      const most = name.length >= LONG ? 2 : 1;
      if (name.length >= SHORTEST && !PLAIN.has(name) && Math.abs(name.length - word.length) <= most && distance(word, name) <= most) return thing;
    }
  }
}

/** The least number of letters that are added, left out, replaced, or exchanged with the next one. */
function distance(first, second) {
  const rows = [Array.from({ length: second.length + 1 }, (_, to) => to)];
  for (let at = 1; at <= first.length; at += 1) {
    const row = [at];
    for (let to = 1; to <= second.length; to += 1) {
      row[to] = Math.min(rows[at - 1][to] + 1, row[to - 1] + 1, rows[at - 1][to - 1] + (first[at - 1] === second[to - 1] ? 0 : 1));
      const isExchanged = at > 1 && to > 1 && first[at - 1] === second[to - 2] && first[at - 2] === second[to - 1];
      if (isExchanged) row[to] = Math.min(row[to], rows[at - 2][to - 2] + 1);
    }
    rows.push(row);
  }
  return rows[first.length][second.length];
}

/** `a car`, `an apple`, `scissors`. */
export function asPrompt(name) {
  if (/(s|jeans|sushi|popcorn|broccoli|corn)$/.test(name) && !/(ss|us|bus|cactus|octopus|walrus)$/.test(name)) return name;
  return `${/^[aeiou]/.test(name) && !/^uni/.test(name) ? 'an' : 'a'} ${name}`;
}

/** Opens the list. @param {(prompt: string) => void} use called with the prompt for a chosen thing */
export async function showKnown(use) {
  const search = element('input', { type: 'search', 'aria-label': 'Search the things', placeholder: 'Search: fruit, animal with wings …' });
  const count = element('p', { class: 'note', role: 'status' });
  const list = element('div', { class: 'stack' });
  const dialog = openDialog('What this model knows', element('div', { class: 'stack' }, search, count, list));
  search.focus();
  let all;
  try {
    all = (await read()).things;
  } catch {
    count.textContent = 'The list cannot be read.';
    return;
  }
  const chosen = (thing) => {
    dialog.close();
    use(asPrompt(thing.names[0]));
  };
  const fill = () => {
    const wanted = search.value.trim().toLowerCase();
    const holds = ({ names, group, words }) => [...names, group.toLowerCase()].some((text) => text.includes(wanted)) || Object.hasOwn(words, wanted);
    const found = all.filter((thing) => wanted === '' || holds(thing));
    count.textContent = found.length === all.length ? `${all.length} things. Choose one. You can add a color or a background.` : `${found.length} of ${all.length} things`;
    list.replaceChildren(...[...new Set(found.map(({ group }) => group))].map((group) => element(
      'section', {}, element('h3', {}, group),
      element('div', { class: 'known-things' }, ...found.filter((thing) => thing.group === group).map((thing) => element(
        'button', { type: 'button', class: 'chip', title: thing.names.join(', '), onclick: () => chosen(thing) },
        element('span', { 'aria-hidden': 'true' }, `${thing.emoji} `), thing.names[0],
      ))),
    )));
  };
  search.addEventListener('input', fill);
  fill();
}

/** Says below the prompt which known thing is nearest to it. @param {{form: object, suggest(prompt: string): void}} page */
export function showNearest({ form, suggest }) {
  const place = document.getElementById('nearest');
  const said = element('span', { role: 'status' });
  const link = element('button', { type: 'button', class: 'text-button', onclick: () => showKnown(suggest) }, 'What this model knows');
  place.append(said, ' ', link);
  const update = async () => {
    const { model, prompt = '' } = form.request();
    place.hidden = !knowsAbout(model);
    if (place.hidden) return;
    const { known, nearest } = prompt.trim() === '' ? { known: true } : understand(prompt, await read().catch(() => ({ things: [], others: '' })));
    if (known) said.replaceChildren();
    else if (!nearest) said.replaceChildren('I know nothing like this.');
    else {
      const name = nearest.names[0];
      const button = element('button', { type: 'button', class: 'text-button', onclick: () => suggest(asPrompt(name)) }, name);
      if (said.dataset.name !== name || said.childElementCount === 0) said.replaceChildren('Nearest thing I know: ', button, '.');
    }
    said.dataset.name = nearest?.names[0] ?? '';
  };
  let timer;
  form.form.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(update, 250);
  });
  form.form.addEventListener('change', update);
  return update;
}
