import { AssayError } from '#base/errors.ts'

/** PKCS#11 sets no limit for labels, but modules do; ours adds `assay/` and nine more characters. */
const pattern = /^[\x21-\x7e]{1,128}$/

/**
 * @throws AssayError `invalid-argument` unless `id` is 1 to 128 printable ASCII characters without blanks,
 * which every implementation can store.
 */
export function verifyKeyId(id: string): void {
  if (pattern.test(id)) return
  throw new AssayError(
    'invalid-argument',
    `cannot use key id ${JSON.stringify(id.slice(0, 150))}: not 1 to 128 printable ascii characters`,
  )
}
