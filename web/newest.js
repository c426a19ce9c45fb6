// Runs the newest of many requests: at most one at a time.

/** The weight of the last run in the average duration of a run. */
const RECENT = 0.4;

export class Newest {
  /**
   * @param {(request: object) => {done: Promise<void>, cancel(): void}} start starts a run. `done` ends when the run has
   *   ended, also after `cancel`
   * @param {() => number} now the time in milliseconds
   */
  constructor(start, now = () => performance.now()) {
    this.start = start;
    this.now = now;
    this.waiting = null;
    this.run = null;
    /** The average duration of a run that was not canceled. */
    this.usualMs = Infinity;
  }

  /** Runs a request as soon as possible. It replaces a request that waits, and cancels the run of an older one. */
  want(request) {
    this.waiting = request;
    if (!this.run) this.next();
    // A run that is more than half done ends sooner than a new one. The run after a canceled one is not canceled, so that
    // typing without a pause still shows pictures.
    else if (!this.spared && this.now() - this.began < this.usualMs / 2) this.cancel();
  }

  /** Cancels everything. */
  stop() {
    this.waiting = null;
    if (this.run) this.cancel();
  }

  // Private methods.

  cancel() {
    this.canceled = true;
    this.run.cancel();
  }

  async next() {
    const request = this.waiting;
    this.waiting = null;
    this.spared = this.canceled;
    this.canceled = false;
    this.began = this.now();
    this.run = this.start(request);
    await this.run.done.catch(() => {});
    if (!this.canceled) {
      const took = this.now() - this.began;
      this.usualMs = this.usualMs === Infinity ? took : RECENT * took + (1 - RECENT) * this.usualMs;
    }
    this.run = null;
    if (this.waiting) this.next();
  }
}
