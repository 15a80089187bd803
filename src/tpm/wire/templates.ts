import { utf8Bytes } from '#base/bytes.ts'
import { algorithm, objectAttribute as bit } from './constants.ts'
import type { PublicArea } from './public-area.ts'

const none = new Uint8Array(0)
const hex = (text: string): Uint8Array => Uint8Array.fromHex(text)

/** PolicyA: PolicySecret(TPM_RH_ENDORSEMENT), SHA-256 (EK Credential Profile §B.6.3). */
const policyA = hex('837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa')

/** A way to make an endorsement key, by the TCG EK Credential Profile §B.3 and §B.4. */
export interface EndorsementKeyProfile {
  /** Key type and range: `low` profiles are used by PolicyA, `high` ones by PolicyB. */
  readonly name: EndorsementKeyProfileName
  /** NV index of the certificate. */
  readonly certificateIndex: number
  /** NV index of a nonce that goes into `unique`, if the maker wrote one. */
  readonly nonceIndex: number | undefined
  /** What TPM2_CreatePrimary is given. */
  readonly template: PublicArea
  /** The branches of its PolicyOR, in order: PolicyA and the owner's PolicyC; undefined: PolicyA is its policy. */
  readonly policyBranches: readonly Uint8Array[] | undefined
}

export type EndorsementKeyProfileName =
  | 'ecc-p256-low'
  | 'ecc-p256-high'
  | 'ecc-p384-high'
  | 'rsa-2048-low'
  | 'rsa-2048-high'

const policyBSha256 = {
  policy: hex('ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0'),
  branches: [policyA, hex('3767e2edd43ff45a3a7e1eaefcef78643dca964632e7aad82c673a30d8633fde')],
}
const policyBSha384 = {
  policy: hex(
    'b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12',
  ),
  branches: [
    hex(
      '8bbf2266537c171cb56e403c4dc1d4b64f432611dc386e6f532050c3278c930e143e8bb1133824ccb431053871c6db53',
    ),
    hex(
      'd6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5b4947c2d73e63005eed2dc2b3593d165',
    ),
  ],
}

/** 0x000300b2: usable by policy alone. */
const lowRangeAttributes =
  bit.fixedTpm |
  bit.fixedParent |
  bit.sensitiveDataOrigin |
  bit.adminWithPolicy |
  bit.restricted |
  bit.decrypt

const low = {
  nameAlgorithm: 'sha256',
  attributes: lowRangeAttributes,
  policy: policyA,
  symmetricBits: 128,
  scheme: undefined,
} as const
const high = {
  ...low,
  attributes: lowRangeAttributes | bit.userWithAuth,
  policy: policyBSha256.policy,
} as const

/**
 * The endorsement keys Assay knows, the preferred ones first: a chip makes an ECC key in a tenth of a second
 * and takes seconds for an RSA key. The order decides a node's identity where there are several, so that it is
 * part of the contract.
 */
export const endorsementKeyProfiles: readonly EndorsementKeyProfile[] = [
  {
    name: 'ecc-p256-low', // L-2
    certificateIndex: 0x01c0000a,
    nonceIndex: 0x01c0000b,
    template: { ...low, type: 'ecc', curve: 'P-256', x: new Uint8Array(32), y: new Uint8Array(32) },
    policyBranches: undefined,
  },
  {
    name: 'ecc-p256-high', // H-2
    certificateIndex: 0x01c00014,
    nonceIndex: undefined,
    template: { ...high, type: 'ecc', curve: 'P-256', x: none, y: none },
    policyBranches: policyBSha256.branches,
  },
  {
    name: 'ecc-p384-high', // H-3
    certificateIndex: 0x01c00016,
    nonceIndex: undefined,
    template: {
      ...high,
      type: 'ecc',
      curve: 'P-384',
      nameAlgorithm: 'sha384',
      policy: policyBSha384.policy,
      symmetricBits: 256,
      x: none,
      y: none,
    },
    policyBranches: policyBSha384.branches,
  },
  {
    name: 'rsa-2048-low', // L-1
    certificateIndex: 0x01c00002,
    nonceIndex: 0x01c00003,
    template: { ...low, type: 'rsa', bits: 2048, modulus: new Uint8Array(256) },
    policyBranches: undefined,
  },
  {
    name: 'rsa-2048-high', // H-1
    certificateIndex: 0x01c00012,
    nonceIndex: undefined,
    template: { ...high, type: 'rsa', bits: 2048, modulus: none },
    policyBranches: policyBSha256.branches,
  },
]

/** NV indices that hold what lies between EK certificates and their maker's root (EK Credential Profile §2.2.1.5.2). */
export const issuerCertificateIndexes = { first: 0x01c00100, last: 0x01c001ff } as const

/**
 * The attestation key: a primary of the endorsement hierarchy, so that it is the same after every boot and
 * after TPM2_Clear and nothing is stored. Restricted: it signs only what the TPM made. Without dictionary-attack
 * protection: nothing can lock it. The label in `unique` keeps it apart from other products' keys; another label
 * is another key.
 */
export const attestationKeyTemplate: PublicArea & { readonly type: 'ecc' } = {
  type: 'ecc',
  curve: 'P-256',
  nameAlgorithm: 'sha256',
  attributes:
    bit.fixedTpm |
    bit.fixedParent |
    bit.sensitiveDataOrigin |
    bit.userWithAuth |
    bit.noDictionaryAttackProtection |
    bit.restricted |
    bit.sign,
  policy: none,
  symmetricBits: undefined,
  scheme: { algorithm: algorithm.ecdsa, hash: 'sha256' },
  x: utf8Bytes('assay attestation key 1'),
  y: none,
}
