import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { setImmediate as endOfTurn } from 'node:timers/promises'
import { AssayError } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Change } from '../../datastore.ts'
import { datastoreError } from './sqlite-error.ts'

type Unnumbered<C> = C extends unknown ? Omit<C, 'revision'> : never

/** Tells the feed of a change that the running transaction makes. */
export type Record = (change: Unnumbered<Change>) => void

interface Job {
  readonly work: (record: Record) => unknown
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
}

type Outcome = { readonly value: unknown } | { readonly error: unknown }

/** Bounds how long one commit keeps the event loop: a write takes some 50 µs. */
const maxJobsPerCommit = 64

/**
 * The one way to write. Jobs that arrive in one turn of the event loop share a transaction and its `fsync`, so
 * that a thousand nodes that attest at once do not wait for a thousand of them; each is undone alone when it
 * throws. The change feed speaks after the commit, before the callers hear of it.
 */
export class Writer {
  readonly #database: DatabaseSync
  readonly #log: Log
  readonly #begin: StatementSync
  readonly #commit: StatementSync
  readonly #rollback: StatementSync
  readonly #savepoint: StatementSync
  readonly #undo: StatementSync
  readonly #release: StatementSync
  readonly #storeRevision: StatementSync
  readonly #listeners = new Set<(change: Change) => void>()
  #jobs: Job[] = []
  #running: Promise<void> | undefined
  #revision: number
  #isClosed = false

  constructor(database: DatabaseSync, { log }: { readonly log: Log }) {
    this.#database = database
    this.#log = log
    this.#begin = database.prepare('BEGIN IMMEDIATE')
    this.#commit = database.prepare('COMMIT')
    this.#rollback = database.prepare('ROLLBACK')
    this.#savepoint = database.prepare('SAVEPOINT job')
    this.#undo = database.prepare('ROLLBACK TO job')
    this.#release = database.prepare('RELEASE job')
    this.#storeRevision = database.prepare('UPDATE feed SET revision = ?')
    const [revision] = Object.values(database.prepare('SELECT revision FROM feed').get() ?? {})
    this.#revision = Number(revision)
  }

  /** The revision of the last committed change. */
  get revision(): number {
    return this.#revision
  }

  watch(listener: (change: Change) => void): Disposable {
    // A function of its own, so that one listener can watch twice.
    const own = (change: Change): void => listener(change)
    this.#listeners.add(own)
    return { [Symbol.dispose]: () => void this.#listeners.delete(own) }
  }

  /** Runs `work` in a transaction. Resolves when it is on disk; rejects when it has changed nothing. */
  write<T>(work: (record: Record) => T): Promise<T> {
    if (this.#isClosed) {
      return Promise.reject(new AssayError('unavailable', 'cannot write: the datastore is closed'))
    }
    return new Promise<T>((resolve, reject) => {
      this.#jobs.push({ work, resolve: (value) => resolve(value as T), reject })
      this.#running ??= this.#run()
    })
  }

  /** Accepts no more, and returns when everything accepted has been written. */
  async close(): Promise<void> {
    this.#isClosed = true
    await this.#running
  }

  async #run(): Promise<void> {
    while (this.#jobs.length > 0) {
      await endOfTurn()
      this.#runTogether(this.#jobs.splice(0, maxJobsPerCommit))
    }
    this.#running = undefined
  }

  #runTogether(jobs: readonly Job[]): void {
    const changes: Change[] = []
    let outcomes: readonly Outcome[]
    try {
      this.#begin.run()
      outcomes = jobs.map((job) => this.#runOne(job, changes))
      const last = changes.at(-1)
      if (last !== undefined) this.#storeRevision.run(last.revision)
      this.#commit.run()
    } catch (error) {
      this.#abandon()
      const failure = datastoreError(error)
      for (const { reject } of jobs) reject(failure)
      return
    }
    this.#publish(changes)
    for (const [index, outcome] of outcomes.entries()) {
      const job = jobs[index]
      if ('error' in outcome) job?.reject(datastoreError(outcome.error))
      else job?.resolve(outcome.value)
    }
  }

  #runOne({ work }: Job, changes: Change[]): Outcome {
    const before = changes.length
    this.#savepoint.run()
    try {
      const value = work((change) => {
        changes.push({ ...change, revision: this.#revision + changes.length + 1 })
      })
      this.#release.run()
      return { value }
    } catch (error) {
      // A full disk ends the whole transaction, and every job with it.
      if (!this.#database.isTransaction) throw error
      this.#undo.run()
      this.#release.run()
      changes.length = before
      return { error }
    }
  }

  #abandon(): void {
    if (!this.#database.isTransaction) return
    try {
      this.#rollback.run()
    } catch (error) {
      this.#log.error({ error }, 'datastore transaction could not be rolled back')
    }
  }

  #publish(changes: readonly Change[]): void {
    for (const change of changes) {
      this.#revision = change.revision
      for (const listener of this.#listeners) {
        try {
          listener(change)
        } catch (error) {
          this.#log.error({ error, revision: change.revision }, 'a watcher of the datastore threw')
        }
      }
    }
  }
}
