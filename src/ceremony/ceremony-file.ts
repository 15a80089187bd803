import { ConfigError } from '#config/config-error.ts'
import { list, map, object, oneOf } from '#config/containers.ts'
import { choice, integer, path, text } from '#config/fields.ts'
import { parseConfig } from '#config/parse-config.ts'
import type { Value } from '#config/schema.ts'
import { defaultCaSubject, withSerialNumber } from '#issuance/ca-certificate.ts'
import { attributeType, type NameAttribute } from '#pki/name.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'

const token = {
  module: path().describe('The PKCS#11 library of the HSM.'),
  token_label: text({ maxBytes: 32 }).describe('The label of the token.'),
  token_serial: text({ maxBytes: 16 })
    .optional()
    .describe('Its serial number, where several tokens have that label.'),
  pin_file: path()
    .optional()
    .describe(
      'A file with the PIN of the token’s user, readable by its owner alone. Default: the credential hsm-pin-LABEL that systemd passes, or the terminal, where it is asked for and not shown.',
    ),
  label: text({ maxBytes: 64 }).as(parseLabel).describe('The label of the key pair.'),
}

const keyType = choice('ec-p256', 'ec-p384', 'rsa-2048', 'rsa-3072', 'rsa-4096')

const keySchema = oneOf({
  generate: object({ ...token, type: keyType.describe('The type of the new key.') }),
  existing: object({
    ...token,
    public_key_file: path().describe(
      'Its public key, PEM: what is signed is known without the token. The token must have this very key.',
    ),
  }),
  public_key: object({
    file: path().describe('PEM. Nobody proves that they hold its private key.'),
  }),
  csr: object({ file: path().describe('PKCS #10, PEM. Of it only the key is used.') }),
}).describe(
  'What is certified: a pair that the ceremony makes in an HSM, one that is there already (which renews its certificate), or, for an intermediate, a key that somebody else holds.',
)

const certificateSchema = object({
  serial_number: text({ maxBytes: 40 })
    .as(parseSerialNumber)
    .describe('16 to 19 random bytes in hex: openssl rand -hex 16.'),
  not_before: text({ maxBytes: 32 })
    .as(parseInstant)
    .describe('Start, such as 2026-12-01T00:00:00Z.'),
  not_after: text({ maxBytes: 32 }).as(parseInstant).describe('End, the last second that counts.'),
  path_length: integer({ min: 0, max: 8 })
    .optional()
    .describe('How many CAs may stand below. Default: any number.'),
  subject: object({
    country: list(text({ maxBytes: 2 })).default([]),
    organization: list(text({ maxBytes: 64 })).default([]),
    common_name: text({ maxBytes: 64 }).optional(),
  })
    .default({})
    .describe('Default: C=US, O=SPIFFE. Without a common name the serial number is added.'),
})

/** The keys of the one file that a ceremony is about. */
export const ceremonySchema = object({
  kind: choice('root', 'intermediate').describe(
    '`root`: a key certifies itself. `intermediate`: the key of `issuer` certifies another one.',
  ),
  trust_domain: text({ maxBytes: 255 }).as(parseTrustDomain),
  key: keySchema,
  certificate: certificateSchema,
  issuer: object({
    ...token,
    certificate_file: path().describe('Its certificate, PEM.'),
  })
    .optional()
    .describe('Who signs an intermediate.'),
  outputs: object({
    certificate: path().describe('PEM.'),
    public_key: path().optional().describe('PEM, for later ceremonies with this key.'),
    transcript: path().describe('JSON; a signature of each operator is written beside it.'),
  }).describe('What is written, all at the end. None of these files may be there before.'),
  operators: object({
    required: integer({ min: 0, max: 32 }).describe('How many of them must sign the transcript.'),
    public_keys: map({ name: 'name', parse: parseOperatorName }, path()).default({}),
  })
    .default({ required: 0, public_keys: {} })
    .describe('Who takes part, by name: the public key of each, Ed25519 or ECDSA, PEM.'),
  expect_tbs_sha256: text({ maxBytes: 64 })
    .as(parseHash)
    .optional()
    .describe(
      'What `assay ceremony plan` printed and everybody has agreed to. Another result is refused.',
    ),
})

/** What a ceremony's file says, checked. Instants are in Unix time, paths absolute. */
export type CeremonyFile = Value<typeof ceremonySchema>
/** Where a key pair is, and how its token is opened. */
export type TokenSettings = Omit<NonNullable<CeremonyFile['issuer']>, 'certificate_file'>

/**
 * Reads a ceremony's file.
 *
 * @throws ConfigError that names line, column and what is wrong, also where two keys do not go together.
 */
export function parseCeremonyFile(document: string, file: string): CeremonyFile {
  const ceremony = parseConfig(ceremonySchema, document, { file })
  const problem = contradiction(ceremony)
  if (problem === undefined) return ceremony
  const [key, message] = problem
  throw new ConfigError([{ file, line: 1, column: 1, key, message }])
}

function contradiction({ kind, key, issuer, operators, certificate }: CeremonyFile) {
  if (kind === 'intermediate' && issuer === undefined) {
    return ['issuer', 'is missing: an intermediate is signed by another CA'] as const
  }
  if (kind === 'root' && issuer !== undefined) {
    return ['issuer', 'is given: a root signs itself'] as const
  }
  if (kind === 'root' && (key.kind === 'public_key' || key.kind === 'csr')) {
    return ['key', 'a root signs itself, so its key is made here or in a token (existing)'] as const
  }
  if (operators.required > operators.public_keys.size) {
    return [
      'operators',
      `${operators.required} must sign and ${operators.public_keys.size} are named`,
    ] as const
  }
  if (certificate.not_before >= certificate.not_after) {
    return ['certificate', 'not_after is not later than not_before'] as const
  }
  return undefined
}

/** The subject that a file asks for. Who gives a CA a name of its own keeps that when the CA is renewed. */
export function subjectOf({
  subject,
  serial_number,
}: CeremonyFile['certificate']): readonly NameAttribute[] {
  const attributes = [
    ...subject.country.map((value) => ({ type: attributeType.country, value })),
    ...subject.organization.map((value) => ({ type: attributeType.organization, value })),
    ...(subject.common_name === undefined
      ? []
      : [{ type: attributeType.commonName, value: subject.common_name }]),
  ]
  if (subject.common_name !== undefined) return attributes
  return withSerialNumber(attributes.length === 0 ? defaultCaSubject : attributes, serial_number)
}

function parseLabel(value: string): string {
  if (/^[\x21-\x7e]+$/.test(value)) return value
  throw new SyntaxError('a label is printable ASCII without blanks')
}

function parseOperatorName(value: string): string {
  if (/^[a-z0-9][a-z0-9._-]{0,31}$/.test(value)) return value
  throw new SyntaxError('an operator’s name is of lower-case letters, digits, dots and dashes')
}

/** 16 bytes leave no doubt that they are random enough; with 20 a sign byte would make it too long (RFC 5280). */
function parseSerialNumber(value: string): Uint8Array {
  if (!/^([0-9a-f]{2}){16,19}$/i.test(value)) {
    throw new SyntaxError('a serial number is 16 to 19 bytes in hex: openssl rand -hex 16')
  }
  return Uint8Array.fromHex(value)
}

function parseHash(value: string): string {
  if (/^[0-9a-f]{64}$/i.test(value)) return value.toLowerCase()
  throw new SyntaxError('a SHA-256 hash is 64 hex digits')
}

function parseInstant(value: string): number {
  try {
    const { epochMilliseconds } = Temporal.Instant.from(value)
    if (epochMilliseconds % 1000 !== 0) throw new RangeError('it has fractions of a second')
    return epochMilliseconds / 1000
  } catch (cause) {
    throw new SyntaxError('a time is written as 2026-12-01T00:00:00Z', { cause })
  }
}
