// The kinds of work: pictures, films and sounds. Each has a tab, its routes, its words, and its files.

/** The file formats of a kind: `{value, name}`. The first one is the server's default. */
const PICTURE_FORMATS = [['png', 'PNG'], ['jpeg', 'JPEG (smaller, lossy)'], ['webp', 'WebP (lossless)']];
const FILM_FORMATS = [
  ['mp4', 'MP4 (AV1, lossy)'], ['webp', 'WebP (lossless)'], ['apng', 'APNG (lossless)'], ['gif', 'GIF (at most 256 colors in a frame)'],
  ['zip', 'ZIP with a PNG file for each frame'],
];
const SOUND_FORMATS = [['wav', 'WAV'], ['flac', 'FLAC (lossless)'], ['opus', 'Opus (smaller, lossy)']];

export const PICTURES = {
  id: 'image', tab: 'Pictures', root: 'v1/images', object: 'image.generation', files: 'images', formats: PICTURE_FORMATS,
  noun: 'picture', nouns: 'pictures', asks: 'Describe the picture', asksNot: 'What the picture should not show', more: 4,
};
export const FILMS = {
  id: 'video', tab: 'Video', root: 'v1/videos', object: 'video.generation', files: 'artifacts', formats: FILM_FORMATS,
  noun: 'film', nouns: 'films', asks: 'Describe the film', asksNot: 'What the film should not show', more: 1,
};
export const SOUNDS = {
  id: 'audio', tab: 'Sound', root: 'v1/audio', object: 'audio.generation', files: 'artifacts', formats: SOUND_FORMATS,
  noun: 'sound', nouns: 'sounds', asks: 'Describe the sound', asksNot: 'What should not be heard', more: 4,
};
export const KINDS = [PICTURES, FILMS, SOUNDS];

/** The kind of a generation. */
export const kindOf = (generation) => KINDS.find(({ object }) => object === generation.object) ?? PICTURES;

/**
 * The kinds that a model of `GET /v1/models` makes; one of pictures may also make films, with a motion adapter. A model
 * that cannot be used is listed with those of pictures.
 */
export function kindsOfModel({ capabilities: can }) {
  if (can?.sound) return [SOUNDS];
  if (!can?.film) return [PICTURES];
  return can.motion_adapters ? [PICTURES, FILMS] : [FILMS];
}

/** File extensions by media type. */
export const EXTENSIONS = {
  'image/png': 'png', 'image/jpeg': 'jpg', 'image/webp': 'webp', 'image/apng': 'png', 'image/gif': 'gif', 'video/mp4': 'mp4', 'application/zip': 'zip',
  'audio/wav': 'wav', 'audio/flac': 'flac', 'audio/ogg': 'opus',
};
/** Media types by the names of file formats. */
const TYPES = { mp4: 'video/mp4', zip: 'application/zip', wav: 'audio/wav', flac: 'audio/flac', opus: 'audio/ogg' };

/** The media type of the file that a request of a kind asks for. */
export function typeOf(request, kind) {
  const format = request.output?.format ?? kind.formats[0][0];
  return TYPES[format] ?? `image/${format}`;
}
