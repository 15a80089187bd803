import { Buffer } from 'node:buffer'
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { AssayError, messageOf } from '#base/errors.ts'
import { pinFileVersion } from '../pin-file-version.ts'

/** PKCS#11 leaves the length to the token; 255 is the most any known one takes. */
const maxPinBytes = 255

/** Where the PIN is. */
export interface PinSource {
  readonly pinFile: string
  /** systemd gave us this file and guards it: its mode bits may show an ACL mask. */
  readonly pinIsCredential: boolean
}

/** A PIN file that is open: what is written in its place from now on is another one. */
export class OpenPin implements Disposable {
  readonly #source: PinSource
  readonly #descriptor: number
  /** Tells this file, as it is, from what comes after it; see {@link pinFileVersion}. */
  readonly version: string

  /** @throws AssayError `failed-precondition` when the file is missing, empty, not ours or open to others. */
  constructor(source: PinSource) {
    this.#source = source
    this.#descriptor = openPin(source)
    this.version = pinFileVersion(fstatSync(this.#descriptor, { bigint: true }))
  }

  /**
   * Gives `use` the PIN, once, without the line end an editor leaves, and wipes it when that returns. The bytes are
   * the only copy in this process; they lie outside of the heap of JavaScript, whose collector would move them.
   *
   * @throws AssayError `failed-precondition` when it is empty or too long.
   */
  use(use: (pin: Uint8Array) => void): void {
    const bytes = Buffer.allocUnsafeSlow(maxPinBytes + 3)
    try {
      let length = readSync(this.#descriptor, bytes)
      if (bytes[length - 1] === 0x0a) length--
      if (bytes[length - 1] === 0x0d) length--
      if (length === 0) throw notReadable(this.#source, 'it is empty')
      if (length > maxPinBytes) {
        throw notReadable(this.#source, `longer than ${maxPinBytes} bytes`)
      }
      use(bytes.subarray(0, length))
    } finally {
      bytes.fill(0)
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor)
  }
}

function openPin(source: PinSource): number {
  const { pinFile, pinIsCredential } = source
  let descriptor: number
  try {
    descriptor = openSync(pinFile, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    throw notReadable(source, messageOf(error), error)
  }
  try {
    const file = fstatSync(descriptor)
    if (!file.isFile()) throw notReadable(source, 'not a regular file')
    if (file.size === 0) throw notReadable(source, 'it is empty')
    if (pinIsCredential) return descriptor
    const uid = process.geteuid?.()
    if (file.uid !== uid && file.uid !== 0) {
      throw notReadable(source, `owned by uid ${file.uid}, not by us (uid ${uid}) or root`)
    }
    const mode = file.mode & 0o777
    if ((mode & 0o077) !== 0) {
      const remedy = `run chmod 0400 ${pinFile}`
      throw notReadable(source, `mode 0${mode.toString(8)} lets others read it; ${remedy}`)
    }
    return descriptor
  } catch (error) {
    closeSync(descriptor)
    throw error
  }
}

function notReadable({ pinFile }: PinSource, why: string, cause?: unknown): AssayError {
  const message = `cannot read hsm pin from ${pinFile}: ${why}`
  return new AssayError('failed-precondition', message, { cause })
}
