import { readFile, rm, stat } from 'node:fs/promises'
import { utf8Bytes } from '#base/bytes.ts'
import type { Random } from '#base/random.ts'
import { writeSecretFile } from '#host/secret-file.ts'
import { pinFileVersion } from './pin-file-version.ts'

/** A note is a few hundred bytes. */
const maxCharacters = 4096

/** Which token refused what. */
export interface RefusedPin {
  readonly module: string
  readonly tokenLabel: string
  readonly pinFile: string
  /** systemd makes the file anew at each start, so that it says nothing about the PIN being another one. */
  readonly pinIsCredential: boolean
}

/**
 * Remembers over restarts that a token has refused a PIN, so that a server that is started again and again does not
 * lock the token. Nothing about the PIN is written down: that it is the same one is told by its file, which has not
 * been written since.
 */
export class PinRefusals {
  readonly #path: string
  readonly #random: Random
  #mayBeKept = true

  /** The note is the file at `path`. */
  constructor(path: string, random: Random) {
    this.#path = path
    this.#random = random
  }

  /** What the token said when it refused this PIN; undefined when it has not, or the PIN was written since. */
  async find(pin: RefusedPin): Promise<string | undefined> {
    let text: string
    try {
      text = await readFile(this.#path, 'utf8')
    } catch {
      return undefined
    }
    const note = parseNote(text)
    if (note === undefined) return undefined
    let version = ''
    try {
      version = pinFileVersion(await stat(pin.pinFile, { bigint: true }))
    } catch (error) {
      // A signer of another user reads it where we may not look: whether it was written again cannot be told.
      const isHidden = (error as NodeJS.ErrnoException).code === 'EACCES'
      if (isHidden && note.pin.startsWith(describe({ ...pin, version }).slice(0, -3))) {
        return note.detail
      }
    }
    return note.pin === describe({ ...pin, version }) ? note.detail : undefined
  }

  /**
   * Remembers it of the PIN that was in the file when it had that `version`: it may have been written again since.
   *
   * @throws Error when it cannot be written.
   */
  async keep(pin: RefusedPin & { readonly version: string }, detail: string): Promise<void> {
    this.#mayBeKept = true
    const note = { pin: describe(pin), detail: detail.slice(0, 1024) }
    await writeSecretFile(this.#path, utf8Bytes(`${JSON.stringify(note)}\n`), {
      random: this.#random,
    })
  }

  /** The token has taken the PIN. */
  async forget(): Promise<void> {
    if (!this.#mayBeKept) return
    await rm(this.#path, { force: true })
    this.#mayBeKept = false
  }
}

/** Token and PIN file in one line. */
const describe = (pin: RefusedPin & { readonly version: string }): string =>
  JSON.stringify(
    pin.pinIsCredential
      ? [pin.module, pin.tokenLabel, 'credential']
      : [pin.module, pin.tokenLabel, pin.pinFile, pin.version],
  )

function parseNote(text: string): { readonly pin: string; readonly detail: string } | undefined {
  if (text.length > maxCharacters) return undefined
  try {
    const { pin, detail } = JSON.parse(text) as { pin?: unknown; detail?: unknown }
    return typeof pin === 'string' && typeof detail === 'string' ? { pin, detail } : undefined
  } catch {
    return undefined
  }
}
