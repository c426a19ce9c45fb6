// The LoRAs, textual inversions, ControlNets, motion adapters and refiners that fit a model, and their names in the
// schema of its requests.

/** Fields that only models have which can compute the last steps of another model. */
const MARK_OF_REFINERS = 'aesthetic_score';

export class AddOns {
  /** @param {(model: string) => object | undefined} schemaOf */
  constructor(schemaOf) {
    this.schemaOf = schemaOf;
    this.offer({});
  }

  /** Takes the lists of the server. */
  offer({ models = [], loras = [], embeddings = [], controlNets = [] }) {
    Object.assign(this, { models, loras, embeddings, controlNets });
  }

  /** The words of the textual inversions of a model, such as `<teal>`. */
  words(model) {
    return fitting(this.embeddings, model).map(({ word, name }) => word ?? `<${name}>`);
  }

  /** The schema of a model with the names of the add-ons that fit. A field without any is left out. */
  schema(model) {
    const schema = this.schemaOf(model);
    if (!schema) return schema;
    const { loras, controls, refiner, motion_adapter: motion, ...properties } = structuredClone(schema.properties);
    const names = (all) => fitting(all, model).map(({ name }) => name);
    if (loras) offerNames(properties, { loras }, loras.items.properties.name, names(this.loras));
    if (controls) offerNames(properties, { controls }, controls.items.properties.model, names(this.controlNets));
    if (motion) offerNames(properties, { motion_adapter: motion }, motion, this.motionAdapters(model));
    if (refiner) offerNames(properties, { refiner }, refiner.properties.model, this.refiners());
    return { ...schema, properties };
  }

  /** The first value of a new row, with the first name that no other row has; undefined if there is no name. */
  fresh(path, rows, model) {
    if (!['loras', 'controls'].includes(path)) return {};
    const [all, key] = path === 'loras' ? [this.loras, 'name'] : [this.controlNets, 'model'];
    const names = fitting(all, model).map(({ name }) => name);
    const free = names.find((name) => !rows.some((row) => row[key] === name));
    if (path === 'loras') return free && { name: free };
    // One ControlNet can follow several pictures. One that is named for edges gets edges.
    const name = free ?? names[0];
    return name && { model: name, ...(/canny/i.test(name) ? { preprocess: 'canny' } : {}) };
  }

  motionAdapters(model) {
    const adapters = this.models.find(({ id }) => id === model)?.capabilities?.motion_adapters ?? [];
    return adapters.map(({ name }) => name);
  }

  refiners() {
    const canRefine = ({ id }) => MARK_OF_REFINERS in (this.schemaOf(id)?.properties ?? {});
    return this.models.filter(canRefine).map(({ id }) => id);
  }
}

function fitting(all, model) {
  return all.filter(({ error, models }) => error === null && models.includes(model));
}

function offerNames(properties, field, nameSchema, names) {
  if (names.length === 0) return;
  nameSchema.enum = names;
  nameSchema['x-offered'] = true;
  delete nameSchema.description;
  Object.assign(properties, field);
}
