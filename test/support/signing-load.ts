import { verify } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { performance } from 'node:perf_hooks'
import type { SigningKey } from '#server/plugin/key-manager/key-manager.ts'

/** What became of the signatures asked for. */
export interface LoadResult {
  signed: number
  failed: number
  /** Released although they do not verify: must stay 0. */
  wrong: number
  /** Of the calls that failed. */
  longestFailureMs: number
}

/** Callers that each ask for one signature after the other, until stopped. */
export class SigningLoad implements AsyncDisposable {
  readonly result: LoadResult = { signed: 0, failed: 0, wrong: 0, longestFailureMs: 0 }
  readonly #callers: readonly Promise<void>[]
  #stopped = false

  /** Starts `inFlight` callers. They stop by themselves after `limit` calls in all. */
  constructor(key: SigningKey, { inFlight = 16, limit = Number.POSITIVE_INFINITY } = {}) {
    let started = 0
    const call = async () => {
      while (!this.#stopped && started++ < limit) await this.#signOnce(key, started)
    }
    this.#callers = Array.from({ length: inFlight }, call)
  }

  /** Waits for the limit. */
  async ended(): Promise<LoadResult> {
    await Promise.all(this.#callers)
    return this.result
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true
    await this.ended()
  }

  async #signOnce(key: SigningKey, number: number): Promise<void> {
    const message = new TextEncoder().encode(`message ${number}`)
    const startedAt = performance.now()
    try {
      const signature = await key.sign(message)
      const verifier = { key: key.publicKey, dsaEncoding: 'ieee-p1363' } as const
      if (verify('sha256', message, verifier, signature)) this.result.signed++
      else this.result.wrong++
    } catch {
      this.result.failed++
      this.result.longestFailureMs = Math.max(
        this.result.longestFailureMs,
        performance.now() - startedAt,
      )
      // A caller that failed at once does not ask again at once.
      await new Promise<void>((resolve) => setTimeout(resolve, 5))
    }
  }
}

/**
 * Measures how long this process's event loop stands still, while it is not disposed. What the thread spent
 * waiting for a processor (`/proc/thread-self/schedstat`) is the machine's doing and is left out.
 */
export class EventLoopWatch implements Disposable {
  #longestMs = 0
  #seenAt = performance.now()
  #waitedMs = processorWaitMs()
  readonly #timer = setInterval(() => this.#look(), 5)

  /** The longest gap so far. */
  get longestMs(): number {
    this.#look()
    return this.#longestMs
  }

  #look(): void {
    const now = performance.now()
    const waitedMs = processorWaitMs()
    const gap = now - this.#seenAt - (waitedMs - this.#waitedMs)
    this.#longestMs = Math.max(this.#longestMs, gap)
    this.#seenAt = now
    this.#waitedMs = waitedMs
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }
}

/** proc(5), /proc/pid/schedstat: the second number is nanoseconds spent runnable but not running. */
function processorWaitMs(): number {
  return Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[1]) / 1e6
}

/** Resolves once `condition` holds; looks every few milliseconds, and gives up after `limitMs`. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  limitMs = 30_000,
): Promise<number> {
  const startedAt = performance.now()
  while (!(await condition())) {
    if (performance.now() - startedAt > limitMs) throw new Error(`waited ${limitMs} ms for ${what}`)
    await new Promise<void>((resolve) => setTimeout(resolve, 5))
  }
  return performance.now() - startedAt
}
