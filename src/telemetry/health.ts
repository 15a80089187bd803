import { messageOf } from '#base/errors.ts'

/** How one part of a process is. */
export interface CheckResult {
  /** False: only a restart can help. */
  readonly live: boolean
  /** False: no new work should be sent here now. */
  readonly ready: boolean
  /** For people; absent when all is well. */
  readonly detail?: string
}

/** Answers from memory, at once; it may throw, which counts as not ready. */
export type HealthCheck = () => CheckResult

/** What `/live` and `/ready` answer. */
export interface HealthReport {
  readonly live: boolean
  readonly ready: boolean
  readonly checks: Readonly<Record<string, CheckResult>>
}

/** The state of every part of a process that can be unwell. */
export class Health {
  readonly #checks = new Map<string, HealthCheck>()

  /** Adds a part by its name: `datastore`, `key-manager`. Disposing takes it out. */
  register(name: string, check: HealthCheck): Disposable {
    if (this.#checks.has(name)) throw new TypeError(`health check ${name} is registered twice`)
    this.#checks.set(name, check)
    return { [Symbol.dispose]: () => void this.#checks.delete(name) }
  }

  /** Live and ready when every part is; not ready while there is no part yet. */
  report(): HealthReport {
    const checks: Record<string, CheckResult> = {}
    for (const [name, check] of this.#checks) checks[name] = outcomeOf(check)
    const results = Object.values(checks)
    return {
      live: results.every(({ live }) => live),
      ready: results.length > 0 && results.every(({ live, ready }) => live && ready),
      checks,
    }
  }
}

function outcomeOf(check: HealthCheck): CheckResult {
  try {
    return check()
  } catch (error) {
    return { live: true, ready: false, detail: messageOf(error) }
  }
}
