/** Until when what each key has signed is valid: Unix time, by the key's id. */
export class SignedUntil {
  readonly #untilSeconds = new Map<string, number>()

  /** Something that the key signs is valid until then. */
  note(keyId: string, untilSeconds: number): void {
    if (untilSeconds > this.of(keyId)) this.#untilSeconds.set(keyId, untilSeconds)
  }

  /** Zero: nothing that is known of. */
  of(keyId: string): number {
    return this.#untilSeconds.get(keyId) ?? 0
  }
}
