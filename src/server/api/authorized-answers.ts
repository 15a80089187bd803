import type { EntryMask } from '#rpc/gen/spire/api/types/entry.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import { entryField, maskKey } from './entry-messages.ts'
import { joinFields } from './protobuf-fields.ts'

/** Bytes that all answers together may take that are remembered. */
export const maxRememberedBytes = 32 * 1024 * 1024

/** An answer below this costs less to put together than to look up and keep. */
export const minRememberedBytes = 64 * 1024

interface Answer {
  readonly mask: string
  readonly bytes: Uint8Array
}

/**
 * Lists of entries as they are sent, each under field 1. The same list, by identity, is put together once: an agent that
 * may serve very many entries and asks for all of them every few seconds costs the sending.
 */
export class AuthorizedAnswers {
  /** The one used last at the end. */
  readonly #answers = new Map<readonly RegistrationEntry[], Answer>()
  #bytes = 0

  /** How many bytes are remembered. */
  get size(): number {
    return this.#bytes
  }

  /** @param entries never changed afterwards, as `AuthorizedEntries.entriesFor` returns them. */
  encode(entries: readonly RegistrationEntry[], mask: EntryMask | undefined): Uint8Array {
    const key = mask === undefined ? '' : maskKey(mask)
    const known = this.#answers.get(entries)
    if (known?.mask === key) {
      this.#answers.delete(entries)
      this.#answers.set(entries, known)
      return known.bytes
    }
    const bytes = joinFields(entries.map((entry) => entryField(1, entry, mask)))
    this.#forget(entries)
    if (bytes.length >= minRememberedBytes && bytes.length <= maxRememberedBytes) {
      this.#answers.set(entries, { mask: key, bytes })
      this.#bytes += bytes.length
      for (const [oldest] of this.#answers) {
        if (this.#bytes <= maxRememberedBytes) break
        this.#forget(oldest)
      }
    }
    return bytes
  }

  #forget(entries: readonly RegistrationEntry[]): void {
    this.#bytes -= this.#answers.get(entries)?.bytes.length ?? 0
    this.#answers.delete(entries)
  }
}
