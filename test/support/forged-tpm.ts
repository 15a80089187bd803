import {
  constants,
  createECDH,
  createPrivateKey,
  createSign,
  generateKeyPairSync,
  type KeyObject,
  privateDecrypt,
  sign,
} from 'node:crypto'
import {
  encodeAnswer,
  encodeEvidence,
  exporter,
  parseChallenge,
  proofOf,
  type TpmAnswer,
  type TpmEvidence,
  type TranscriptParts,
  transcript,
} from '#attestation/tpm.ts'
import { concatBytes, equalBytes } from '#base/bytes.ts'
import { keyUsageBit } from '#pki/certificate.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import type { Credential } from '#tpm/verify/credential.ts'
import { curves, digest, digestBytes, type HashAlgorithm } from '#tpm/wire/algorithms.ts'
import { algorithm } from '#tpm/wire/constants.ts'
import { decryptCfb, hmac, kdfa, kdfe, labelBytes } from '#tpm/wire/key-derivation.ts'
import { parseWhole, Reader, sized, u8, u16, u32, u64 } from '#tpm/wire/marshal.ts'
import { type PcrSelection, writePcrSelection } from '#tpm/wire/pcr-selection.ts'
import {
  type EccPublicArea,
  endorsementQualifiedName,
  nameOf,
  type PublicArea,
  writePublicArea,
} from '#tpm/wire/public-area.ts'
import { subjectPublicKeyInfo } from '#tpm/wire/public-key.ts'
import { type Signature, writeSignature } from '#tpm/wire/signature.ts'
import { attestationKeyTemplate, endorsementKeyProfiles } from '#tpm/wire/templates.ts'
import {
  basicConstraints,
  type CertificateFields,
  endorsementUsage,
  extendedKeyUsage,
  keyUsage,
  makeCertificate,
  maker,
  tpmNames,
} from './endorsement-maker.ts'
import { type TestConnection, testConnection } from './tpm-exchange.ts'

// A "TPM" that is nothing but software and has its private keys at hand: the strongest forger there is, who can
// sign any structure and lie in every field, one at a time. Without a lie it is accepted.

/** An ECC key and its private half. */
export interface SoftwareKey {
  readonly area: PublicArea
  readonly privateKey: KeyObject
}

/** A key by an ECC template; the curve is the template's. */
export function softwareKey(template: EccPublicArea): SoftwareKey {
  const { privateKey, publicKey } = generateKeyPairSync('ec', {
    namedCurve: curves[template.curve].opensslName,
  })
  const { x = '', y = '' } = publicKey.export({ format: 'jwk' })
  const bytes = (text: string) => Uint8Array.fromBase64(text, { alphabet: 'base64url' })
  return { area: { ...template, x: bytes(x), y: bytes(y) }, privateKey }
}

const [p256, , , rsa2048] = endorsementKeyProfiles.map(({ template }) => template)
if (p256?.type !== 'ecc' || rsa2048?.type !== 'rsa') throw new Error('the profiles have moved')

/** Templates of the endorsement keys that forgeries use. */
export const endorsementTemplates = { p256, rsa2048 } as const

/** The RSA endorsement key with these primes. */
export function rsaKeyOf(p: bigint, q: bigint): SoftwareKey {
  const e = 65537n
  const d = inverse(e, (p - 1n) * (q - 1n))
  const n = p * q
  const number = (value: bigint) =>
    Uint8Array.fromHex(hexOf(value)).toBase64({ alphabet: 'base64url', omitPadding: true })
  const privateKey = createPrivateKey({
    format: 'jwk',
    key: {
      kty: 'RSA',
      n: number(n),
      e: 'AQAB',
      d: number(d),
      p: number(p),
      q: number(q),
      dp: number(d % (p - 1n)),
      dq: number(d % (q - 1n)),
      qi: number(inverse(q, p)),
    },
  })
  return {
    area: { ...endorsementTemplates.rsa2048, modulus: Uint8Array.fromHex(hexOf(n)) },
    privateKey,
  }
}

const hexOf = (value: bigint): string => {
  const hex = value.toString(16)
  return hex.length % 2 === 0 ? hex : `0${hex}`
}

function inverse(value: bigint, modulus: bigint): bigint {
  let [a, b, x, y] = [value % modulus, modulus, 1n, 0n]
  while (a > 1n) {
    const quotient = a / b
    ;[a, b, x, y] = [b, a % b, y, x - quotient * y]
  }
  return x < 0n ? x + modulus : x
}

/** What a TPMS_ATTEST says. */
export interface AttestedFields {
  readonly magic: number
  readonly type: number
  readonly qualifiedSigner: Uint8Array
  readonly extraData: Uint8Array
  readonly clock: bigint
  readonly resetCount: number
  readonly restartCount: number
  readonly firmwareVersion: bigint
  readonly selections: readonly { bank: HashAlgorithm; indexes: readonly number[] }[]
  /** What the digest is taken over. */
  readonly quotedValues: readonly Uint8Array[]
  /** What follows the firmware version; undefined: selections and digest, as in a quote. */
  readonly body: Uint8Array | undefined
}

/** The lies of one forgery; what is left out is honest. */
export interface Lies {
  readonly endorsementKey?: SoftwareKey
  readonly attestationKey?: SoftwareKey
  /** The public areas as presented. */
  readonly endorsementArea?: (bytes: Uint8Array) => Uint8Array
  readonly attestationArea?: (bytes: Uint8Array) => Uint8Array
  readonly certificate?: Partial<CertificateFields>
  /** The chain after the certificate, or instead of it. */
  readonly chain?: (certificate: Uint8Array) => readonly Uint8Array[]
  readonly evidence?: Partial<TpmEvidence>
  readonly payload?: (bytes: Uint8Array) => Uint8Array
  /** The secret used instead of the one in the credential. */
  readonly secret?: Uint8Array
  readonly provenTranscript?: Partial<TranscriptParts>
  readonly attested?: (honest: AttestedFields) => Partial<AttestedFields>
  readonly attestedBytes?: (bytes: Uint8Array) => Uint8Array
  readonly signatureHash?: HashAlgorithm
  readonly signingKey?: KeyObject
  readonly signature?: (signature: Signature) => Signature
  readonly signatureBytes?: (bytes: Uint8Array) => Uint8Array
  readonly pcrValues?: (values: readonly Uint8Array[]) => readonly Uint8Array[]
  readonly answer?: (answer: TpmAnswer) => TpmAnswer
  readonly answerBytes?: (bytes: Uint8Array) => Uint8Array
}

const honestEndorsementKey = softwareKey(endorsementTemplates.p256)
const honestAttestationKey = softwareKey(attestationKeyTemplate)

/** Identity of the forger's endorsement key unless it uses another. */
export const forgedEndorsementKey = honestEndorsementKey
export const firmwareVersion = 0x0007000200030001n

/** Extensions of an honest endorsement certificate. */
export function honestExtensions(type: 'rsa' | 'ecc') {
  return {
    constraints: basicConstraints(false),
    usage: keyUsage(type === 'rsa' ? keyUsageBit.keyEncipherment : keyUsageBit.keyAgreement),
    extendedUsage: extendedKeyUsage(endorsementUsage),
    names: tpmNames('id:41535359', 'Forged', 'id:00020000'),
  }
}

/** The first message. */
export function forgePayload(lies: Lies): Uint8Array {
  const { area } = lies.endorsementKey ?? honestEndorsementKey
  const { area: attestationArea } = lies.attestationKey ?? honestAttestationKey
  const certificate = makeCertificate({
    subject: 'TPM',
    issuer: maker.rootName,
    publicKey: subjectPublicKeyInfo(area),
    signingKey: maker.root.privateKey,
    version: 3,
    serial: Uint8Array.of(7),
    notBefore: '2024-01-01T00:00:00Z',
    notAfter: '2039-01-01T00:00:00Z',
    extensions: Object.values(honestExtensions(area.type)),
    ...lies.certificate,
  })
  const same = (bytes: Uint8Array): Uint8Array => bytes
  const evidence = {
    endorsementKey: (lies.endorsementArea ?? same)(writePublicArea(area)),
    attestationKey: (lies.attestationArea ?? same)(writePublicArea(attestationArea)),
    certificates: lies.chain?.(certificate) ?? [certificate],
    claims: { manufacturer: 0x41535359, firmwareVersion, model: 'Forged' },
    ...lies.evidence,
  }
  return (lies.payload ?? same)(encodeEvidence(evidence))
}

/** The answer to a challenge, in the name of `connection`. */
export function forgeAnswer(
  lies: Lies,
  challenge: Uint8Array,
  connection: TestConnection = testConnection(),
): Uint8Array {
  const same = (bytes: Uint8Array): Uint8Array => bytes
  const endorsementKey = lies.endorsementKey ?? honestEndorsementKey
  const attestationKey = lies.attestationKey ?? honestAttestationKey
  const { credential, nonce, selection } = parseChallenge(challenge)
  const name = nameOf(attestationKey.area)
  const secret = lies.secret ?? activate(endorsementKey, name, credential)
  const parts: TranscriptParts = {
    trustDomain: parseTrustDomain('example.org'),
    nonce,
    csrPublicKey: connection.csrPublicKey,
    endorsementKey: subjectPublicKeyInfo(endorsementKey.area),
    attestationKeyName: name,
    exported: connection.exporter(exporter.label, exporter.bytes),
  }
  const proven = transcript({ ...parts, ...lies.provenTranscript })
  const values = selection.indexes.map((index) => new Uint8Array(32).fill(index))
  const honest = {
    magic: 0xff544347,
    type: 0x8018,
    qualifiedSigner: endorsementQualifiedName(attestationKey.area),
    extraData: transcript(parts),
    clock: 1_000_000n,
    resetCount: 40,
    restartCount: 4,
    firmwareVersion,
    selections: [selection],
    quotedValues: values,
    body: undefined,
  }
  const attested = (lies.attestedBytes ?? same)(
    writeAttested({ ...honest, ...lies.attested?.(honest) }),
  )
  const signature = signAttested(attested, lies, attestationKey.privateKey)
  const answer = {
    proof: proofOf(secret, proven),
    quote: {
      attested,
      signature: (lies.signatureBytes ?? same)(writeSignature(signature)),
      pcrValues: [...(lies.pcrValues?.(values) ?? values)],
    },
  }
  return (lies.answerBytes ?? same)(encodeAnswer(lies.answer?.(answer) ?? answer))
}

function writeAttested(fields: AttestedFields): Uint8Array {
  return concatBytes(
    u32(fields.magic),
    u16(fields.type),
    sized(fields.qualifiedSigner),
    sized(fields.extraData),
    u64(fields.clock),
    u32(fields.resetCount),
    u32(fields.restartCount),
    u8(1),
    u64(fields.firmwareVersion),
    fields.body ??
      concatBytes(
        writeSelections(fields.selections),
        sized(digest('sha256', ...fields.quotedValues)),
      ),
  )
}

function writeSelections(selections: readonly PcrSelection[]): Uint8Array {
  const single = selections.map((selection) => writePcrSelection(selection).subarray(4))
  return concatBytes(u32(single.length), ...single)
}

function signAttested(attested: Uint8Array, lies: Lies, key: KeyObject): Signature {
  const hash = lies.signatureHash ?? 'sha256'
  const signer = lies.signingKey ?? key
  if (signer.asymmetricKeyType === 'rsa') {
    const bytes = new Uint8Array(createSign(hash).update(attested).sign(signer))
    return { algorithm: algorithm.rsaSsa, hash, bytes }
  }
  const raw = new Uint8Array(sign(hash, attested, { key: signer, dsaEncoding: 'ieee-p1363' }))
  const honest: Signature = {
    algorithm: algorithm.ecdsa,
    hash,
    r: raw.slice(0, raw.length / 2),
    s: raw.slice(raw.length / 2),
  }
  return lies.signature?.(honest) ?? honest
}

/** TPM2_ActivateCredential in software: the inverse of `makeCredential`. */
export function activate(
  { area, privateKey }: SoftwareKey,
  name: Uint8Array,
  { credentialBlob, encryptedSecret }: Credential,
): Uint8Array {
  const hash = area.nameAlgorithm
  const bits = digestBytes(hash) * 8
  const none = new Uint8Array(0)
  const seed = area.type === 'rsa' ? decryptSeed() : agreeSeed(area)
  const { integrity, identity } = parseWhole(credentialBlob, (reader) => ({
    integrity: reader.sized(),
    identity: reader.rest(),
  }))
  const macKey = kdfa(hash, seed, { label: 'INTEGRITY', u: none, v: none }, bits)
  if (!equalBytes(hmac(hash, macKey, identity, name), integrity))
    throw new Error('not for this key')
  const key = kdfa(hash, seed, { label: 'STORAGE', u: name, v: none }, area.symmetricBits ?? 128)
  return parseWhole(decryptCfb(key, new Uint8Array(16), identity), (reader) => reader.sized())

  function decryptSeed(): Uint8Array {
    const padding = constants.RSA_PKCS1_OAEP_PADDING
    const options = { key: privateKey, padding, oaepHash: hash, oaepLabel: labelBytes('IDENTITY') }
    return new Uint8Array(privateDecrypt(options, encryptedSecret))
  }

  function agreeSeed({ curve, x }: EccPublicArea): Uint8Array {
    const reader = new Reader(encryptedSecret)
    const [theirX, theirY] = [reader.sized(), reader.sized()]
    const ours = createECDH(curves[curve].opensslName)
    const { d = '' } = privateKey.export({ format: 'jwk' })
    ours.setPrivateKey(Uint8Array.fromBase64(d, { alphabet: 'base64url' }))
    const z = ours.computeSecret(concatBytes(u8(4), theirX, theirY))
    return kdfe(hash, new Uint8Array(z), { label: 'IDENTITY', u: theirX, v: x }, bits)
  }
}
