import { Buffer } from 'node:buffer'
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { AssayError, messageOf } from '#base/errors.ts'

/** PKCS#11 leaves the length to the token; 255 is the most any known one takes. */
const maxPinBytes = 255

/** Where the PIN is. */
export interface PinSource {
  readonly pinFile: string
  /** systemd gave us this file and guards it: its mode bits may show an ACL mask. */
  readonly pinIsCredential: boolean
}

/**
 * Looks whether there is a PIN to read, without reading it.
 *
 * @throws AssayError `failed-precondition` when the file is missing, empty, not ours or open to others.
 */
export function verifyPinFile(source: PinSource): void {
  closeSync(openPin(source))
}

/**
 * Gives `use` the PIN in the file, without the line end an editor leaves, and wipes it when that returns. The bytes
 * are the only copy in this process; they lie outside of the heap of JavaScript, whose collector would move them.
 *
 * @throws AssayError `failed-precondition` as {@link verifyPinFile} does.
 */
export function withPin(source: PinSource, use: (pin: Uint8Array) => void): void {
  const descriptor = openPin(source)
  const bytes = Buffer.allocUnsafeSlow(maxPinBytes + 3)
  try {
    let length = readSync(descriptor, bytes)
    if (bytes[length - 1] === 0x0a) length--
    if (bytes[length - 1] === 0x0d) length--
    if (length === 0) throw notReadable(source, 'it is empty')
    if (length > maxPinBytes) throw notReadable(source, `longer than ${maxPinBytes} bytes`)
    use(bytes.subarray(0, length))
  } finally {
    bytes.fill(0)
    closeSync(descriptor)
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
