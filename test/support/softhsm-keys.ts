import { createDecipheriv, createECDH, createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { concatBytes, utf8Bytes } from '#base/bytes.ts'

// SoftHSM protects keys by a PIN, not by hardware: with the PIN its files can be read, which no PKCS#11 call
// allows. A test so learns what must be found nowhere else.

/** Attributes of SoftHSM's files that are needed: the blob with the token's key, and an EC private key. */
const attribute = { userPin: 0x8000534d, value: 0x11 } as const

const iterations = 1500
const magic = 'RJR'

/** The private scalars (32 bytes, big-endian) of all P-256 keys in the only token below `directory`. */
export function softHsmScalars(directory: string, pin: string): readonly Uint8Array[] {
  const tokens = join(directory, 'tokens')
  const [token] = readdirSync(tokens)
  if (token === undefined) throw new Error(`there is no token in ${tokens}`)
  const files = readdirSync(join(tokens, token)).filter((name) => name.endsWith('.object'))
  const key = tokenKey(readFileSync(join(tokens, token, 'token.object')), pin)
  return files
    .map((name) => attributeOf(readFileSync(join(tokens, token, name)), attribute.value))
    .filter((encrypted) => encrypted !== undefined)
    .map((encrypted) => decrypted(key, encrypted))
}

/** The uncompressed point of a P-256 scalar: 65 bytes. */
export function publicPoint(scalar: Uint8Array): Uint8Array {
  const key = createECDH('prime256v1')
  key.setPrivateKey(scalar)
  return new Uint8Array(key.getPublicKey())
}

/** What all private objects of the token are encrypted with: iterated SHA-256 of the PIN opens it. */
function tokenKey(file: Uint8Array, pin: string): Uint8Array {
  const blob = attributeOf(file, attribute.userPin)
  if (blob === undefined) throw new Error('the token has no user PIN')
  const salt = blob.subarray(0, 8)
  let key = sha256(concatBytes(salt, utf8Bytes(pin)))
  for (let left = iterations + (salt[7] ?? 0) - 1; left > 0; left--) key = sha256(key)
  const opened = decrypted(key, blob.subarray(8))
  if (new TextDecoder().decode(opened.subarray(0, 3)) !== magic) throw new Error('the PIN is wrong')
  return opened.subarray(3)
}

/** A byte string among `type(8) ‖ kind(8) ‖ length(8) ‖ bytes`, big-endian. */
function attributeOf(file: Uint8Array, type: number): Uint8Array | undefined {
  const head = new DataView(new ArrayBuffer(16))
  head.setBigUint64(0, BigInt(type))
  head.setBigUint64(8, 3n)
  const at = Buffer.from(file).indexOf(Buffer.from(head.buffer))
  if (at < 0) return undefined
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(at + 16))
  return file.subarray(at + 24, at + 24 + length)
}

/** AES-256-CBC with the initialisation vector in front. */
function decrypted(key: Uint8Array, sealed: Uint8Array): Uint8Array {
  const cipher = createDecipheriv('aes-256-cbc', key, sealed.subarray(0, 16))
  return concatBytes(cipher.update(sealed.subarray(16)), cipher.final())
}

function sha256(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(bytes).digest())
}
