import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import process from 'node:process'
import { setTimeout as sleep } from 'node:timers/promises'

/** A program in the background, whose output goes to a log file. */
export class Daemon implements AsyncDisposable {
  readonly name: string
  readonly log: string
  readonly #child: ChildProcess
  readonly #exited: Promise<void>
  #status: string | undefined

  constructor(
    name: string,
    command: readonly [string, ...string[]],
    {
      log,
      environment = {},
    }: { readonly log: string; readonly environment?: Readonly<Record<string, string>> },
  ) {
    this.name = name
    this.log = log
    const [program, ...args] = command
    const output = openSync(log, 'a', 0o600)
    // A group of its own: Ctrl-C reaches the demonstration alone, which then ends the rest in order.
    this.#child = spawn(program, args, {
      stdio: ['ignore', output, output],
      detached: true,
      env: { ...process.env, ...environment },
    })
    closeSync(output)
    this.#exited = new Promise((resolve) => {
      this.#child.once('error', (error) => {
        this.#status = error.message
        resolve()
      })
      this.#child.once('exit', (code, signal) => {
        this.#status = signal ?? `exit status ${code}`
        resolve()
      })
    })
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  /**
   * Waits until `ready` says yes.
   *
   * @throws Error with the end of the log when the program ends first or `seconds` pass.
   */
  async waitUntil(ready: () => Promise<boolean>, seconds = 30): Promise<void> {
    const deadline = performance.now() + seconds * 1000
    while (!(await ready())) {
      const late = performance.now() > deadline
      if (this.#status !== undefined || late) {
        const why = this.#status ?? `not ready after ${seconds} s`
        throw new Error(`${this.name}: ${why}\n${this.tail()}`)
      }
      await sleep(25)
    }
  }

  /** Ends the program by a signal that it cannot catch, and waits until it is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#exited
  }

  /** The last lines of the log. */
  tail(lines = 15): string {
    return readFileSync(this.log, 'utf8').trimEnd().split('\n').slice(-lines).join('\n')
  }

  /** Lets the program go on after this process has ended. */
  release(): void {
    this.#child.unref()
  }

  /** Asks the program to end, and makes it after 10 s. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#status !== undefined) return
    this.#child.kill('SIGTERM')
    const guard = setTimeout(() => this.#child.kill('SIGKILL'), 10_000)
    await this.#exited
    clearTimeout(guard)
  }
}
