// What the embedded model knows: a list to search, and the nearest known thing for other prompts.

import { openDialog } from './dialog.js';
import { element } from './element.js';

/** Words that name no thing: of the grammar of the model's captions. */
const PLAIN = new Set((
  'a an the of on in at with and or from by to for my your his her its this that these some any one two three four pair couple '
  + 'red orange yellow green blue purple pink brown black white grey gray teal golden silver light dark background ground style noto '
  + 'fluent 3d emoji picture drawing image photo icon illustration painting render sticker cute nice beautiful funny lovely simple '
  + 'single shiny pretty small little big large tiny huge happy beside above below under next over'
).split(' '));
/** The least share of equal trigrams of two words of which one may be misspelled. */
const LEAST_ALIKE = 0.45;

let reading;

/** Whether there is a list for a model. */
export const knowsAbout = (model) => model === 'emoji';

/** @returns {Promise<{emoji: string, names: string[], group: string, words: string}[]>} */
export function things() {
  reading ??= fetch('known.json').then((answer) => answer.json()).then(({ things }) => things);
  reading.catch(() => { reading = undefined; });
  return reading;
}

/**
 * What a prompt means to the model: `known` if it has a word of a name, otherwise the nearest thing, if there is one.
 * @returns {{known: boolean, nearest?: object}}
 */
export function understand(prompt, things) {
  const words = prompt.toLowerCase().replace(/<[^>]*>/g, ' ').match(/[a-z0-9]+/g) ?? [];
  const said = words.filter((word) => !PLAIN.has(word) && word.length > 2);
  if (said.length === 0) return { known: true };
  const known = new Set(things.flatMap(({ names }) => names.flatMap((name) => name.split(/[ -]/))));
  if (said.some((word) => forms(word).some((form) => known.has(form)))) return { known: true };
  const byWord = new Map(things.flatMap((thing) => thing.words.split(' ').map((word) => [word, thing])));
  const meant = said.toReversed().flatMap(forms).find((word) => byWord.has(word));
  return { known: false, nearest: meant ? byWord.get(meant) : alike(said, things) };
}

/** A word as it is, and without the endings of a plural. */
const forms = (word) => [word, word.replace(/ies$/, 'y'), word.replace(/es$/, ''), word.replace(/s$/, ''), word.replace(/ves$/, 'f')];

/** The thing with the name that is spelled most like one of the words. */
function alike(said, things) {
  let best = { share: LEAST_ALIKE };
  for (const thing of things) {
    for (const name of thing.names) {
      for (const word of said) {
        const share = likeness(word, name);
        if (share > best.share) best = { share, thing };
      }
    }
  }
  return best.thing;
}

/** The share of equal trigrams of two texts. */
function likeness(first, second) {
  const [one, other] = [first, second].map((text) => {
    const padded = `  ${text} `;
    return new Set(Array.from({ length: padded.length - 2 }, (_, at) => padded.slice(at, at + 3)));
  });
  const same = [...one].filter((part) => other.has(part)).length;
  return same / (one.size + other.size - same);
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
    all = await things();
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
    const holds = ({ names, group, words }) => [...names, group.toLowerCase()].some((text) => text.includes(wanted)) || words.split(' ').includes(wanted);
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
    const { known, nearest } = prompt.trim() === '' ? { known: true } : understand(prompt, await things().catch(() => []));
    if (known) said.replaceChildren();
    else if (!nearest) said.replaceChildren('This model may not know this.');
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
