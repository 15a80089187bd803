/** TPM_RH: permanent handles (TPM 2.0 Part 2 §7.4). */
export const permanentHandle = {
  owner: 0x40000001,
  null: 0x40000007,
  password: 0x40000009,
  lockout: 0x4000000a,
  endorsement: 0x4000000b,
  platform: 0x4000000c,
} as const

/** TPM_ALG_ID of what is not a hash (Part 2 §6.3). */
export const algorithm = {
  rsa: 0x0001,
  aes: 0x0006,
  null: 0x0010,
  rsaSsa: 0x0014,
  rsaEs: 0x0015,
  rsaPss: 0x0016,
  ecdsa: 0x0018,
  ecc: 0x0023,
  cfb: 0x0043,
} as const

/** TPM_ST: structure tags (Part 2 §6.9). */
export const structureTag = {
  noSessions: 0x8001,
  sessions: 0x8002,
  attestCertify: 0x8017,
  attestQuote: 0x8018,
} as const

/** TPM_GENERATED_VALUE (Part 2 §6.2): what every structure the TPM itself made begins with, `ff 'T' 'C' 'G'`. */
export const generatedByTpm = 0xff544347

/** TPMA_OBJECT bits (Part 2 §8.3.2). */
export const objectAttribute = {
  fixedTpm: 0x00000002,
  fixedParent: 0x00000010,
  sensitiveDataOrigin: 0x00000020,
  userWithAuth: 0x00000040,
  adminWithPolicy: 0x00000080,
  noDictionaryAttackProtection: 0x00000400,
  restricted: 0x00010000,
  decrypt: 0x00020000,
  sign: 0x00040000,
} as const
