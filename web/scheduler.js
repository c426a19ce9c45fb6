// The field `scheduler` of a request: a name, or an object of diffusers' configuration keys that override the model's.

/** The text that the page shows for a scheduler. */
export function schedulerName(choice) {
  if (typeof choice === 'string') return choice;
  if (!choice || Object.keys(choice).length === 0) return 'model default';
  return choice._class_name ?? 'custom';
}
