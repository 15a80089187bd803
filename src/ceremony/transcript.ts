import { utf8Bytes, utf8Text } from '#base/bytes.ts'
import { list, map, object } from '#config/containers.ts'
import { boolean, choice, integer, text } from '#config/fields.ts'
import { parseConfig } from '#config/parse-config.ts'
import type { Value } from '#config/schema.ts'

export const transcriptFormat = 'assay-ceremony-transcript/1'

const maxTextBytes = 128 * 1024
const hex = (maxBytes: number) => text({ maxBytes }).as(parseHex)
const names = { name: 'name', parse: (value: string) => value }

const tokenKey = object({
  token_label: text({ maxBytes: 256 }),
  token_serial: text({ maxBytes: 256 }),
  token_model: text({ maxBytes: 256 }),
  label: text({ maxBytes: 256 }),
  id: text({ maxBytes: 256 }),
  attributes: map(names, boolean()),
})

/** JSON is YAML, so a transcript is read as strictly, and as bounded, as a configuration. */
const transcriptSchema = object({
  format: choice(transcriptFormat),
  assay: text({ maxBytes: 64 }),
  node: text({ maxBytes: 64 }),
  started_at: text({ maxBytes: 64 }),
  finished_at: text({ maxBytes: 64 }),
  file: object({
    name: text(),
    sha256: text({ maxBytes: 64 }),
    text: text({ maxBytes: maxTextBytes }),
  }),
  planned_tbs_sha256: text({ maxBytes: 64 }),
  key: object({
    public_key: hex(16_384),
    made: boolean(),
    on_token: tokenKey.optional(),
  }),
  issuer: object({ certificate: hex(maxTextBytes), on_token: tokenKey }).optional(),
  lints: list(text()),
  tbs: hex(maxTextBytes),
  tbs_sha256: text({ maxBytes: 64 }),
  certificate: hex(maxTextBytes),
  operators: object({
    required: integer({ min: 0, max: 32 }),
    signing: map(names, hex(4096)),
  }),
})

/** The record of a ceremony. Bytes are DER; in the document they are hex. */
export type Transcript = Value<typeof transcriptSchema>

/** The document that operators sign, byte for byte. */
export function encodeTranscript(transcript: Transcript): Uint8Array {
  const document = JSON.stringify(
    transcript,
    (_name, value: unknown) =>
      value instanceof Uint8Array
        ? value.toHex()
        : value instanceof Map
          ? Object.fromEntries(value)
          : value,
    2,
  )
  return utf8Bytes(`${document}\n`)
}

/** @throws ConfigError that names what is not as a transcript has it. */
export function parseTranscript(document: Uint8Array, file: string): Transcript {
  return parseConfig(transcriptSchema, utf8Text(document), { file })
}

function parseHex(value: string): Uint8Array {
  if (!/^([0-9a-f]{2})+$/.test(value)) throw new SyntaxError('it is not hex')
  return Uint8Array.fromHex(value)
}
