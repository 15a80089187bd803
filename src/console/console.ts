import type { Clock } from '#base/clock.ts'
import type { Random } from '#base/random.ts'
import type { Connection } from '#rpc/client.ts'
import { loadAssets } from './assets.ts'
import { type HttpListener, type HttpOptions, type ListenAt, listenHttp } from './http.ts'
import { Sessions } from './sessions.ts'
import { Topics } from './topics.ts'
import { nodeDetails } from './views/nodes.ts'
import { Watcher } from './watcher.ts'

export interface ConsoleOptions {
  /** To the server; with the rights of whoever made it, and no others. */
  readonly connection: Connection
  readonly listenAt: ListenAt
  /** Called when a link was used. */
  readonly onLinkUsed: () => void
  readonly clock: Clock
  readonly random: Random
}

/** A page in the browser that shows what a server does. It changes nothing, and asks nothing while nobody looks. */
export class WebConsole implements AsyncDisposable {
  readonly #options: ConsoleOptions
  readonly #listener: HttpListener
  readonly #parts: { readonly topics: Topics; readonly sessions: Sessions }

  private constructor(
    options: ConsoleOptions,
    listener: HttpListener,
    parts: { readonly topics: Topics; readonly sessions: Sessions },
  ) {
    this.#options = options
    this.#listener = listener
    this.#parts = parts
  }

  /** @throws AssayError `unavailable` when it cannot listen there. */
  static async open(options: ConsoleOptions): Promise<WebConsole> {
    const { connection, listenAt, onLinkUsed, random } = options
    const topics = new Topics()
    const sessions = new Sessions(random)
    const parts: HttpOptions = {
      assets: loadAssets(),
      sessions,
      view: (signal) => topics.view(signal),
      details: (id, signal) => nodeDetails(connection, id, signal),
      onRedeemed: onLinkUsed,
    }
    return new WebConsole(options, await listenHttp(listenAt, parts), { topics, sessions })
  }

  /** The port; undefined on a Unix socket. */
  get port(): number | undefined {
    return this.#listener.port
  }

  /** A token for a link, in place of one that has not been used. */
  newLink(): string {
    return this.#parts.sessions.newLink()
  }

  /** Serves until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    await new Watcher({ ...this.#options, topics: this.#parts.topics }).run(signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#listener[Symbol.asyncDispose]()
  }
}
