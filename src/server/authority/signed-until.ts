/** Until when what each key has signed is valid: Unix time, by the key's id. And what it is signing now. */
export class SignedUntil {
  readonly #untilSeconds = new Map<string, number>()
  readonly #underWay = new Map<string, number>()

  /** Something that the key signs is valid until then. */
  note(keyId: string, untilSeconds: number): void {
    if (untilSeconds > this.of(keyId)) this.#untilSeconds.set(keyId, untilSeconds)
  }

  /** The same, of a signature that is being made until what is returned is disposed of. */
  begin(keyId: string, untilSeconds: number): Disposable {
    this.note(keyId, untilSeconds)
    this.#underWay.set(keyId, (this.#underWay.get(keyId) ?? 0) + 1)
    return {
      [Symbol.dispose]: () => {
        const left = (this.#underWay.get(keyId) ?? 1) - 1
        if (left > 0) this.#underWay.set(keyId, left)
        else this.#underWay.delete(keyId)
      },
    }
  }

  /** Zero: nothing that is known of. */
  of(keyId: string): number {
    return this.#untilSeconds.get(keyId) ?? 0
  }

  /** Whether the key signs something that nobody has yet. */
  isSigning(keyId: string): boolean {
    return this.#underWay.has(keyId)
  }
}
