import assert from 'node:assert/strict'
import { test } from 'node:test'
import { object, oneOf } from './containers.ts'
import { duration, path, port, text } from './fields.ts'
import { jsonSchema, markdownTable } from './reference.ts'

const schema = object({
  ca_ttl: duration({ min: '1m', max: '8760h' }).default('24h').describe('CA life, in seconds.'),
  datastore: oneOf({ sqlite: object({ path: path() }), memory: object({}) }),
  key_manager: object({ pin_file: path().optional() }).default({}),
})

test('jsonSchema() forbids unknown keys and carries defaults, ranges and descriptions', () => {
  assert.deepEqual(jsonSchema(object({ a: port().default(1).describe('A port.'), b: text() })), {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    type: 'object',
    additionalProperties: false,
    properties: {
      a: { description: 'A port.', default: 1, type: 'integer', minimum: 1, maximum: 65_535 },
      b: { type: 'string', minLength: 1, maxLength: 4096 },
    },
    required: ['b'],
  })
})

test('markdownTable() has a row for every key with its default', () => {
  const lines = markdownTable(schema).split('\n')
  assert.ok(
    lines.includes(
      '| `ca_ttl` | a duration from 1m to 8760h, written like 90s, 15m, 24h or 1h30m | `"24h"` | CA life, in seconds. |',
    ),
  )
  assert.ok(lines.includes('| `datastore.sqlite.path` | a path of 1 to 4095 bytes | required |  |'))
  assert.ok(lines.includes('| `key_manager.pin_file` | a path of 1 to 4095 bytes | – |  |'))
})
