// The errors of a request, each at the control of its field.

export class Errors {
  /** @param {HTMLFormElement} form its errors without a control are in `#form-error` */
  constructor(form) {
    this.form = form;
  }

  /** Shows the errors of a problem document, and moves the focus to the first control with an error. */
  show(errors) {
    const others = [];
    const marked = [];
    for (const { pointer, detail } of errors) {
      const found = this.find(pointer);
      if (!found) {
        others.push(detail);
        continue;
      }
      const { place, control } = found;
      say(place, place.hidden ? detail : `${place.textContent}; ${detail}`);
      control.setAttribute('aria-invalid', 'true');
      marked.push(control);
    }
    say(document.getElementById('form-error'), others.join('\n'));
    const first = [...this.form.querySelectorAll('[aria-invalid]')].find((control) => marked.includes(control));
    for (let part = first?.closest('details'); part; part = part.parentElement.closest('details')) part.open = true;
    first?.focus();
  }

  clear() {
    for (const control of this.form.querySelectorAll('[aria-invalid]')) control.removeAttribute('aria-invalid');
    for (const place of this.form.querySelectorAll('.error')) say(place, '');
  }

  /** Removes the error of the field at a path, such as `steps` or `refiner.switch_at`. */
  forgive(path) {
    const found = this.at(path);
    found?.control.removeAttribute('aria-invalid');
    if (found) say(found.place, '');
  }

  /** Shows a text in the place for errors without a control; an empty text hides it. */
  tell(text) {
    say(document.getElementById('form-error'), text);
  }

  // Private methods.

  /** The place for an error: that of its field, or otherwise of the list or object that contains the field. */
  find(pointer) {
    const path = pointer === '/size' ? ['width'] : pointer.split('/').slice(1);
    for (; path.length > 0; path.pop()) {
      const found = this.at(path.join('.'));
      if (found && isShown(found.place)) return found;
    }
    return null;
  }

  at(path) {
    const place = path && document.getElementById(`${path}-error`);
    if (!place) return null;
    const control = this.form.querySelector(`[aria-describedby~="${CSS.escape(place.id)}"]`)
      ?? place.parentElement.querySelector('input, select, textarea, button');
    return control && { place, control };
  }
}

/** Whether a place is hidden only by closed sections, which open when it has an error. */
function isShown(place) {
  return place.parentElement.closest('[hidden]') === null;
}

function say(place, text) {
  place.textContent = text;
  place.hidden = text === '';
}
