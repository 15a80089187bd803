import { utf8Bytes } from '#base/bytes.ts'

/** Everything in an archive is padded to this. */
export const blockBytes = 512

/** A file in an archive, before its bytes. */
export interface TarEntry {
  readonly name: string
  readonly bytes: number
}

/** How many zero bytes follow a file of this size. */
export const paddingBytes = (bytes: number): number =>
  (blockBytes - (bytes % blockBytes)) % blockBytes

/**
 * The header of a regular file of mode 0600 that belongs to root (POSIX.1-2001, ustar). `name` has at most 100 bytes of
 * ASCII, `bytes` is below 8 GiB.
 */
export function tarHeader(
  { name, bytes }: TarEntry,
  { mtimeSeconds }: { readonly mtimeSeconds: number },
): Uint8Array {
  if (!/^[\x21-\x7e]{1,100}$/.test(name) || bytes >= 8 ** 11) {
    throw new RangeError(`cannot put ${name} of ${bytes} bytes into an archive`)
  }
  const header = new Uint8Array(blockBytes)
  const put = (at: number, text: string): void => header.set(utf8Bytes(text), at)
  const octal = (value: number, digits: number): string => value.toString(8).padStart(digits, '0')
  put(0, name)
  put(100, octal(0o600, 7))
  put(108, octal(0, 7))
  put(116, octal(0, 7))
  put(124, octal(bytes, 11))
  put(136, octal(mtimeSeconds, 11))
  put(148, ' '.repeat(8))
  put(156, '0')
  put(257, 'ustar\u000000')
  put(265, 'root')
  put(297, 'root')
  put(148, `${octal(checksum(header), 6)}\0 `)
  return header
}

/**
 * Reads what {@link tarHeader} wrote, and nothing else that archives may hold.
 *
 * @returns undefined at the end of the archive.
 * @throws SyntaxError that says what is wrong.
 */
export function parseTarHeader(header: Uint8Array): TarEntry | undefined {
  if (header.length !== blockBytes) throw new SyntaxError('the archive ends too early')
  if (header.every((byte) => byte === 0)) return undefined
  const text = (at: number, length: number): string =>
    String.fromCharCode(...header.subarray(at, at + length)).replace(/[\0 ]+$/, '')
  const number = (at: number, length: number): number => {
    const digits = text(at, length)
    if (!/^[0-7]{1,11}$/.test(digits)) throw new SyntaxError('it is not an archive of a backup')
    return Number.parseInt(digits, 8)
  }
  const blank = header.slice()
  blank.fill(0x20, 148, 156)
  if (text(257, 5) !== 'ustar' || number(148, 7) !== checksum(blank)) {
    throw new SyntaxError('it is not an archive of a backup, or it is damaged')
  }
  if (text(156, 1) !== '0') throw new SyntaxError('it holds something that is not a file')
  return { name: text(0, 100), bytes: number(124, 12) }
}

const checksum = (header: Uint8Array): number => header.reduce((sum, byte) => sum + byte, 0)
