// A scheduler as a request names it: a name, or an object of diffusers' configuration keys laid over the model's own.

/** In words for people. */
export function schedulerName(choice) {
  if (typeof choice === 'string') return choice;
  if (!choice || Object.keys(choice).length === 0) return "the model's own";
  return choice._class_name ?? 'custom';
}
