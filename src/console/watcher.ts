import { Backoff } from '#base/backoff.ts'
import type { Clock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Random } from '#base/random.ts'
import { runTasks, type Task } from '#base/tasks.ts'
import type { Connection } from '#rpc/client.ts'
import { State } from '#rpc/gen/assay/server/v1/inventory.ts'
import type { TopicName, Topics } from './topics.ts'
import { keysView } from './views/keys.ts'
import { listInventory, NodeList, watchNodes } from './views/nodes.ts'
import { refusalsView } from './views/refusals.ts'
import { summaryView } from './views/summary.ts'

export interface WatcherOptions {
  readonly connection: Connection
  readonly topics: Topics
  readonly clock: Clock
  readonly random: Random
}

const second = Temporal.Duration.from({ seconds: 1 })
/** Of TPMs that are approved, there may be 10,000, and they change when somebody imports them. */
const inventoryRounds = 30
/** Longest wait for an answer: a server that hangs is shown as away. */
const patience = Temporal.Duration.from({ seconds: 10 })

/** States in which there are few TPMs, and which change while somebody watches. */
const watchedStates = [State.PENDING, State.DENIED, State.BANNED] as const

/** What one call answers. */
type Answered = Exclude<TopicName, 'nodes' | 'server' | 'missing'>

/** Why something cannot be shown, for who looks. */
interface Problem {
  readonly code: string
  readonly message: string
}

const problemOf = (error: unknown): Problem => ({
  code: error instanceof AssayError ? error.code : 'internal',
  message: messageOf(error),
})

/** Asks the server for everything that is shown, as long as somebody looks. */
export class Watcher {
  readonly #options: WatcherOptions
  readonly #list = new NodeList()
  #knowsNodes = false
  /** Why there are no nodes, or nothing of the inventory. */
  readonly #missing: { nodes?: Problem; inventory?: Problem } = {}

  constructor(options: WatcherOptions) {
    this.#options = options
  }

  async run(signal: AbortSignal): Promise<void> {
    const poll =
      (topic: Answered, view: (of: Connection, stop: AbortSignal) => Promise<object>): Task =>
      (stop) =>
        this.#repeat(stop, async () => {
          await this.#ask(topic, (limit) => view(this.#options.connection, limit), stop)
        })
    let round = 0
    await runTasks(signal, [
      poll('summary', summaryView),
      poll('keys', keysView),
      poll('refusals', refusalsView),
      (stop) => this.#watchNodes(stop),
      (stop) => this.#repeat(stop, () => this.#readInventory(round++, stop)),
    ])
  }

  /** Once a second, while somebody looks. */
  async #repeat(signal: AbortSignal, action: () => Promise<void>): Promise<void> {
    for (;;) {
      await this.#options.topics.watched(signal)
      await action()
      await this.#options.clock.sleep(second, signal)
    }
  }

  /** The answer or why there is none, in `topic`; of the summary also whether the server is there. */
  async #ask(
    topic: Answered,
    view: (limit: AbortSignal) => Promise<object>,
    signal: AbortSignal,
  ): Promise<void> {
    const { topics, connection } = this.#options
    try {
      const data = await this.#inTime(view, signal)
      topics.set(topic, { data })
      if (topic === 'summary')
        topics.set('server', { connected: true, address: connection.address })
    } catch (error) {
      signal.throwIfAborted()
      const problem = problemOf(error)
      const isAway = problem.code === 'unavailable'
      if (topic === 'summary') {
        topics.set('server', {
          connected: !isAway,
          address: connection.address,
          ...(isAway && { why: problem.message }),
        })
      }
      // What was known before it went is better than nothing, and the page says that it is old.
      if (!isAway) topics.set(topic, { problem })
    }
  }

  async #watchNodes(signal: AbortSignal): Promise<void> {
    const { topics, connection, clock, random } = this.#options
    const backoff = new Backoff({
      first: Temporal.Duration.from({ milliseconds: 500 }),
      longest: Temporal.Duration.from({ seconds: 2 }),
      random,
    })
    for (;;) {
      await topics.watched(signal)
      const stop = new AbortController()
      try {
        for await (const update of watchNodes(connection, AbortSignal.any([signal, stop.signal]))) {
          backoff.reset()
          this.#list.apply(update)
          this.#knowsNodes = true
          this.#note('nodes')
          topics.setNodes(this.#list.views())
          if (!topics.isWatched) stop.abort(new Error('nobody looks'))
        }
      } catch (error) {
        signal.throwIfAborted()
        this.#note('nodes', error)
      }
      await clock.sleep(backoff.next(), signal)
    }
  }

  async #readInventory(round: number, signal: AbortSignal): Promise<void> {
    const { topics, connection } = this.#options
    try {
      await this.#inTime(async (limit) => {
        const readAll = async (): Promise<void> =>
          this.#list.setRecords(await listInventory(connection, State.STATE_UNSPECIFIED, limit))
        if (round % inventoryRounds === 0 || (round % 5 === 0 && this.#list.lacksRecords)) {
          return await readAll()
        }
        const records = []
        for (const state of watchedStates) {
          records.push(...(await listInventory(connection, state, limit)))
        }
        if (!this.#list.updateRecords(records, new Set(watchedStates))) await readAll()
      }, signal)
      this.#note('inventory')
      // Without them TPMs that have attested would seem not to have.
      if (this.#knowsNodes) topics.setNodes(this.#list.views())
    } catch (error) {
      signal.throwIfAborted()
      this.#note('inventory', error)
    }
  }

  /** Remembers whether there is an answer. Of a server that is away the summary tells. */
  #note(of: 'nodes' | 'inventory', error?: unknown): void {
    const problem = error === undefined ? undefined : problemOf(error)
    if (problem?.code === 'unavailable') return
    if (problem === undefined) delete this.#missing[of]
    else this.#missing[of] = problem
    this.#options.topics.set('missing', { ...this.#missing })
  }

  async #inTime<T>(action: (limit: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    const done = new AbortController()
    const late = new AbortController()
    const timer = this.#options.clock
      .sleep(patience, AbortSignal.any([signal, done.signal]))
      .then(() => late.abort(new AssayError('unavailable', 'the server does not answer')))
      .catch(() => {
        // It was done in time.
      })
    try {
      return await action(AbortSignal.any([signal, late.signal]))
    } catch (error) {
      if (late.signal.aborted) throw late.signal.reason
      throw error
    } finally {
      done.abort(new Error('done'))
      await timer
    }
  }
}
