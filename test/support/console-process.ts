import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface, type Interface } from 'node:readline'

const root = new URL('../..', import.meta.url).pathname

/** `assay console` as a process, whose links a test can open. */
export class ConsoleProcess implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>
  readonly #reader: Interface

  constructor(args: readonly string[]) {
    this.#child = spawn(`${root}bin/assay`, ['console', '--json', ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const { stdout } = this.#child
    if (stdout === null) throw new TypeError('it was started with a pipe')
    this.#reader = createInterface({ input: stdout })
    this.#lines = this.#reader[Symbol.asyncIterator]()
  }

  /** The next link that it prints. */
  async nextLink(): Promise<string> {
    const { value, done } = await this.#lines.next()
    if (done === true) throw new Error('assay console has ended')
    return (JSON.parse(value) as { readonly url: string }).url
  }

  /** Asks it to end. @returns its exit status. */
  async stop(): Promise<number | null> {
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGTERM')
    const [status] = await ended
    return status as number | null
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#reader.close()
    if (this.#child.exitCode === null && this.#child.signalCode === null) await this.stop()
  }
}
