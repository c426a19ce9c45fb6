// Links that save files.

import * as api from './api.js';
import { element, icon } from './element.js';

/** Saves bytes as a file. */
export function save(blob, name) {
  const href = URL.createObjectURL(blob);
  const link = element('a', { href, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}

/** Makes a link download a file under a file name. */
export function downloads(link, image, name) {
  link.href = api.local(image.url);
  link.download = name;
  link.onclick = async (event) => {
    if (!api.needsKey(image.url)) return;
    event.preventDefault();
    save(await api.bytes(image), name);
  };
  return link;
}

/** An icon that downloads a file. `number` distinguishes the icons of several files. */
export const downloadIcon = (file, name, number = '') => {
  const label = `Download${number}`;
  return downloads(element('a', { class: 'icon', 'aria-label': label, title: label }, icon('download')), file, name);
};
