import { frameKind } from './protocol.ts'
import type { SignerProcess } from './signer-process.ts'
import { Silence } from './silence.ts'

/**
 * A token that is far away is left in peace for so many times as long as a probe takes, at most two seconds. Of the
 * last two the faster one counts: the other may have met with trouble that is over.
 */
const restFactor = 20
const longestRestMs = 2000

/** What a watch needs beside the signer it watches. */
export interface SignerWatchOptions {
  /** How long one signature takes when nobody else asks. */
  readonly usualSigningMs: number
  /** Milliseconds from any fixed point, never going back. */
  readonly monotonicMs: () => number
  /** Asks token and sessions whether they are there; settles with the answer, and never throws. */
  readonly probe: () => Promise<void>
}

/**
 * Watches whether a signer answers. While nobody asks it for anything the watch does, which also finds that the
 * token has gone, and keeps sessions alive that time out.
 */
export class SignerWatch {
  readonly signer: SignerProcess
  readonly #options: SignerWatchOptions
  readonly #signing: Silence
  readonly #probing: Silence
  #signatures = 0
  #lastProbeTookMs = 0
  #nextProbeMs = 0

  constructor(signer: SignerProcess, options: SignerWatchOptions) {
    this.signer = signer
    this.#options = options
    this.#signing = new Silence(options.usualSigningMs)
    this.#probing = new Silence(options.usualSigningMs)
  }

  /** To be called as often as {@link Silence} wants. Says why answers are overdue, or undefined when none is. */
  look(): string | undefined {
    this.#probeWhenIdle()
    const [sign, probe, generate, destroy] = [
      this.signer.ledger(frameKind.sign),
      this.signer.ledger(frameKind.probe),
      this.signer.ledger(frameKind.generate),
      this.signer.ledger(frameKind.destroy),
    ]
    // Many modules do one thing at a time, and making a key may take them many seconds.
    const isBusy = generate.owed + destroy.owed > 0
    const isMute = this.#probing.look(isBusy ? 0 : probe.owed, probe.answered + sign.answered)
    const isIdle = this.#signing.look(isBusy ? 0 : sign.owed, sign.answered)
    if (isMute) return 'it does not answer'
    return isIdle ? 'it answers, but does not sign' : undefined
  }

  #probeWhenIdle(): void {
    const { answered } = this.signer.ledger(frameKind.sign)
    const isUsed = answered !== this.#signatures
    this.#signatures = answered
    const startedMs = this.#options.monotonicMs()
    if (isUsed || startedMs < this.#nextProbeMs || this.signer.ledger(frameKind.probe).owed > 0) {
      return
    }
    void this.#options.probe().then(() => {
      const endedMs = this.#options.monotonicMs()
      const tookMs = endedMs - startedMs
      const restMs = restFactor * Math.min(tookMs, this.#lastProbeTookMs)
      this.#nextProbeMs = endedMs + Math.min(restMs, longestRestMs)
      this.#lastProbeTookMs = tookMs
    })
  }
}
