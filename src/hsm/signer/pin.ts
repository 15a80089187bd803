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
 * The PIN in the file, without the line end an editor leaves. The caller wipes it.
 *
 * @throws AssayError `failed-precondition` when the file is missing, empty, not ours or open to others.
 */
export function loadPin(source: PinSource): Uint8Array {
  const { pinFile } = source
  const refuse = (why: string, cause?: unknown) =>
    new AssayError('failed-precondition', `cannot read hsm pin from ${pinFile}: ${why}`, { cause })

  let descriptor: number
  try {
    descriptor = openSync(pinFile, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    throw refuse(messageOf(error), error)
  }
  const bytes = new Uint8Array(maxPinBytes + 3)
  try {
    const file = fstatSync(descriptor)
    if (!file.isFile()) throw refuse('not a regular file')
    if (!source.pinIsCredential) {
      const uid = process.geteuid?.()
      if (file.uid !== uid && file.uid !== 0) {
        throw refuse(`owned by uid ${file.uid}, not by us (uid ${uid}) or root`)
      }
      const mode = file.mode & 0o777
      if ((mode & 0o077) !== 0) {
        throw refuse(`mode 0${mode.toString(8)} lets others read it; run chmod 0400 ${pinFile}`)
      }
    }
    let length = readSync(descriptor, bytes)
    if (bytes[length - 1] === 0x0a) length--
    if (bytes[length - 1] === 0x0d) length--
    if (length === 0) throw refuse('it is empty')
    if (length > maxPinBytes) throw refuse(`longer than ${maxPinBytes} bytes`)
    return bytes.slice(0, length)
  } finally {
    bytes.fill(0)
    closeSync(descriptor)
  }
}
