import { Buffer } from 'node:buffer'
import { createHash } from 'node:crypto'
import { equalBytes } from '#base/bytes.ts'
import { type HsmKeyType, profileOf } from '../key-type.ts'
import { type Attribute, ck } from './cryptoki.ts'

/** DER of the curve's object identifier, as CKA_EC_PARAMS holds it (RFC 5480 §2.1.1.1). */
const curveParameters = {
  'P-256': Uint8Array.fromHex('06082a8648ce3d030107'),
  'P-384': Uint8Array.fromHex('06052b81040022'),
} as const

const rsaBits = { 'rsa-2048': 2048, 'rsa-3072': 3072, 'rsa-4096': 4096 } as const
const rsaTypes = ['rsa-2048', 'rsa-3072', 'rsa-4096'] as const

/** CKM_… that makes a pair of this type. */
export function generationMechanism(type: HsmKeyType): number {
  return profileOf(type).family === 'ec' ? ck.CKM_EC_KEY_PAIR_GEN : ck.CKM_RSA_PKCS_KEY_PAIR_GEN
}

/** How the two halves of a new pair are named, and whether they stay on the token. */
export interface Placement {
  readonly label: string
  readonly id: Uint8Array
}

/** What makes an object permanent and fixed. */
export function placementAttributes(placement: Placement): Attribute[] {
  return [
    { type: ck.CKA_TOKEN, value: true },
    { type: ck.CKA_LABEL, value: placement.label },
    { type: ck.CKA_ID, value: Buffer.from(placement.id) },
    { type: ck.CKA_MODIFIABLE, value: false },
  ]
}

const passing: readonly Attribute[] = [{ type: ck.CKA_TOKEN, value: false }]

/** The public half. Without `placement` it lives as long as its session. */
export function publicKeyTemplate(type: HsmKeyType, placement?: Placement): Attribute[] {
  const template: Attribute[] = [
    { type: ck.CKA_PRIVATE, value: false },
    { type: ck.CKA_VERIFY, value: true },
    ...(placement === undefined ? passing : placementAttributes(placement)),
  ]
  if (type !== 'ec-p256' && type !== 'ec-p384') {
    template.push(
      { type: ck.CKA_MODULUS_BITS, value: rsaBits[type] },
      { type: ck.CKA_PUBLIC_EXPONENT, value: Buffer.from(Uint8Array.of(1, 0, 1)) },
    )
  } else {
    const curve = type === 'ec-p256' ? 'P-256' : 'P-384'
    template.push({ type: ck.CKA_EC_PARAMS, value: Buffer.from(curveParameters[curve]) })
  }
  return template
}

/** The private half: it signs, and does nothing else. */
export function privateKeyTemplate(placement?: Placement): Attribute[] {
  return [
    { type: ck.CKA_PRIVATE, value: true },
    { type: ck.CKA_SENSITIVE, value: true },
    { type: ck.CKA_EXTRACTABLE, value: false },
    { type: ck.CKA_SIGN, value: true },
    { type: ck.CKA_DERIVE, value: false },
    { type: ck.CKA_DECRYPT, value: false },
    { type: ck.CKA_UNWRAP, value: false },
    ...(placement === undefined ? passing : placementAttributes(placement)),
  ]
}

/** An AES-256 key that seals and unseals, and does nothing else. */
export const sealingKeyTemplate = (label: string): Attribute[] => [
  { type: ck.CKA_CLASS, value: ck.CKO_SECRET_KEY },
  { type: ck.CKA_KEY_TYPE, value: ck.CKK_AES },
  { type: ck.CKA_VALUE_LEN, value: 32 },
  { type: ck.CKA_TOKEN, value: true },
  { type: ck.CKA_PRIVATE, value: true },
  { type: ck.CKA_LABEL, value: label },
  { type: ck.CKA_SENSITIVE, value: true },
  { type: ck.CKA_EXTRACTABLE, value: false },
  { type: ck.CKA_MODIFIABLE, value: false },
  { type: ck.CKA_ENCRYPT, value: true },
  { type: ck.CKA_DECRYPT, value: true },
  { type: ck.CKA_WRAP, value: false },
  { type: ck.CKA_UNWRAP, value: false },
  { type: ck.CKA_SIGN, value: false },
  { type: ck.CKA_VERIFY, value: false },
  { type: ck.CKA_DERIVE, value: false },
]

/** What a private key must say of itself before Assay signs with it: PKCS#11 v2.40 §4.9, Table 23. */
const required = [
  ['CKA_SENSITIVE', ck.CKA_SENSITIVE, true],
  ['CKA_ALWAYS_SENSITIVE', ck.CKA_ALWAYS_SENSITIVE, true],
  ['CKA_EXTRACTABLE', ck.CKA_EXTRACTABLE, false],
  ['CKA_NEVER_EXTRACTABLE', ck.CKA_NEVER_EXTRACTABLE, true],
  ['CKA_LOCAL', ck.CKA_LOCAL, true],
  ['CKA_MODIFIABLE', ck.CKA_MODIFIABLE, false],
] as const

/** CKA_… to read for {@link attributeFault}, in its order. */
export const guardingAttributes: readonly number[] = required.map(([, type]) => type)

/** The same by name, out of the values of {@link guardingAttributes}. */
export function guardsOf(values: readonly Uint8Array[]): Readonly<Record<string, boolean>> {
  return Object.fromEntries(required.map(([name], index) => [name, values[index]?.[0] === 1]))
}

/** The attributes that are not as they must be, in words, or undefined when all six are. */
export function attributeFault(values: readonly Uint8Array[]): string | undefined {
  const faults = required.flatMap(([name, , wanted], index) => {
    const value = values[index]
    const isRight = value?.length === 1 && (value[0] !== 0) === wanted
    return isRight ? [] : [`${name} is not ${wanted}`]
  })
  return faults.length === 0 ? undefined : faults.join(', ')
}

/** CKA_ID of a pair: the first 20 bytes of SHA-256 over its SubjectPublicKeyInfo. */
export function keyIdOf(publicKey: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(publicKey).digest().subarray(0, 20))
}

/** The curve that CKA_EC_PARAMS names, or undefined when it is none of ours. */
export function curveOf(parameters: Uint8Array): 'P-256' | 'P-384' | undefined {
  if (equalBytes(parameters, curveParameters['P-256'])) return 'P-256'
  if (equalBytes(parameters, curveParameters['P-384'])) return 'P-384'
  return undefined
}

/** The type of an RSA key with a modulus of so many bits, or undefined when it is none of ours. */
export function rsaTypeOf(bits: number): HsmKeyType | undefined {
  return rsaTypes.find((type) => rsaBits[type] === bits)
}

/** RFC 8017 §9.2 note 1: DER of DigestInfo up to the digest itself. */
const sha256DigestInfo = Uint8Array.fromHex('3031300d060960864801650304020105000420')

/** What C_Sign is given, so that no module needs to hash. */
export function signInput(
  type: HsmKeyType,
  digest: Uint8Array,
): { mechanism: number; data: Uint8Array } {
  if (profileOf(type).family === 'ec') return { mechanism: ck.CKM_ECDSA, data: digest }
  const data = new Uint8Array(sha256DigestInfo.length + digest.length)
  data.set(sha256DigestInfo)
  data.set(digest, sha256DigestInfo.length)
  return { mechanism: ck.CKM_RSA_PKCS, data }
}
