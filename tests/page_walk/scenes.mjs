// The scenes of the walk: each uses one part of the page, with a server of its own.

import { comparing, zoom } from "./scenes/comparing.mjs";
import { deleted } from "./scenes/deleted.mjs";
import { code, models, reference } from "./scenes/dialogs.mjs";
import { filmsAndSounds, filmsAndSoundsInTheDark } from "./scenes/films_and_sounds.mjs";
import { bulk, failures, history, longHistory, oldStars, stars, tabs } from "./scenes/history.mjs";
import { changedKey, keyEntry, optionalKey, signedKey } from "./scenes/keys.mjs";
import { incoming, refiner, sizes } from "./scenes/incoming.mjs";
import { infotexts } from "./scenes/infotexts.mjs";
import { known } from "./scenes/known.mjs";
import { live } from "./scenes/live.mjs";
import { references } from "./scenes/references.mjs";
import { restart } from "./scenes/restart.mjs";
import { fields, mask, reuse } from "./scenes/sources.mjs";
import { starredSource } from "./scenes/starred_source.mjs";
import { keyboard, variations } from "./scenes/variations.mjs";

export const scenes = {
  variations, keyboard, comparing, zoom, history, longHistory, stars, oldStars, starredSource, bulk, failures, tabs, deleted, live, known, code, models, reference, keyEntry,
  optionalKey, changedKey, signedKey, restart, infotexts, mask, reuse, fields, incoming, sizes, refiner, references, filmsAndSounds,
  filmsAndSoundsInTheDark,
};
