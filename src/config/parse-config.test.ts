import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ConfigError } from './config-error.ts'
import { list, map, object, oneOf } from './containers.ts'
import { boolean, choice, duration, integer, path, port, text } from './fields.ts'
import { loadConfig, parseConfig } from './parse-config.ts'
import type { Schema } from './schema.ts'

const schema = object({
  trust_domain: text({ maxBytes: 255 }).describe('The name of the trust domain.'),
  bind_port: port().default(8081),
  ca_ttl: duration({ min: '1m', max: '8760h' }).default('24h').describe('CA life, in seconds.'),
  datastore: oneOf({
    sqlite: object({ path: path() }),
    memory: object({}),
  }),
  key_manager: object({ pin_file: path().optional() }).default({}),
  workers: integer({ min: 0, max: 4 }).optional(),
  log_level: choice('debug', 'info').default('info'),
  strict: boolean().default(false),
  admin_ids: list(text()).default([]),
})

const file = '/etc/assay/server.yaml'

function problemsOf<T>(of: Schema<T>, yaml: string): readonly string[] {
  try {
    parseConfig(of, yaml, { file: 'f.yaml' })
  } catch (error) {
    assert.ok(error instanceof ConfigError)
    return error.message.split('\n')
  }
  return []
}

const good = 'trust_domain: example.org\ndatastore: { sqlite: { path: ../db } }\n'

test('parseConfig() gives typed values, defaults, seconds and absolute paths', () => {
  const config = parseConfig(schema, `${good}ca_ttl: 1h30m\nadmin_ids: [a, b]\n`, { file })
  assert.deepEqual(config, {
    trust_domain: 'example.org',
    bind_port: 8081,
    ca_ttl: 5400,
    datastore: { kind: 'sqlite', path: '/etc/db' },
    key_manager: { pin_file: undefined },
    workers: undefined,
    log_level: 'info',
    strict: false,
    admin_ids: ['a', 'b'],
  })
  if (config.datastore.kind === 'sqlite') config.datastore.path satisfies string
  config.workers satisfies number | undefined
})

test('parseConfig() takes a key without a value for an empty mapping', () => {
  const yaml = 'trust_domain: example.org\ndatastore: { memory: }\nkey_manager:\n'
  assert.deepEqual(parseConfig(schema, yaml, { file }).datastore, { kind: 'memory' })
})

test('parseConfig() reports every problem, with line, column and key', () => {
  const yaml = [
    'trust_domian: example.org',
    'bind_port: 70000',
    'ca_ttl: 90',
    'datastore:',
    '  sqlite: { path: 7, ath: x }',
    'log_level: loud',
    'strict: yes',
    'admin_ids: [1, ok]',
  ].join('\n')
  assert.deepEqual(problemsOf(schema, yaml), [
    'f.yaml:1:1: trust_domian: unknown key; did you mean trust_domain?',
    'f.yaml:1:1: trust_domain: is missing; it is text of 1 to 255 bytes',
    'f.yaml:2:12: bind_port: is 70000; it must be an integer from 1 to 65535 (TCP port)',
    'f.yaml:3:9: ca_ttl: is 90; it must be a duration from 1m to 8760h, written like 90s, 15m, 24h or 1h30m',
    'f.yaml:5:19: datastore.sqlite.path: is 7; it must be a path of 1 to 4095 bytes',
    'f.yaml:5:22: datastore.sqlite.ath: unknown key; did you mean path?',
    'f.yaml:6:12: log_level: is "loud"; it must be one of debug, info',
    'f.yaml:7:9: strict: is "yes"; it must be true or false',
    'f.yaml:8:13: admin_ids[0]: is 1; it must be text of 1 to 4096 bytes (quote what YAML takes for a number)',
  ])
})

test('parseConfig() refuses none and two of a oneOf', () => {
  const base = 'trust_domain: example.org\n'
  assert.deepEqual(problemsOf(schema, `${base}datastore: {}\n`), [
    'f.yaml:2:12: datastore: exactly one of sqlite, memory must be given; none is',
  ])
  assert.deepEqual(problemsOf(schema, `${base}datastore: { sqlite: { path: a }, memory: {} }\n`), [
    'f.yaml:2:12: datastore: exactly one of sqlite, memory must be given; sqlite and memory are',
  ])
})

test('object() refuses none and two of a group of which exactly one is due', () => {
  const bootstrap = object(
    {
      path: path().optional(),
      url: text().optional(),
      retries: integer({ min: 0, max: 9 }).default(1),
    },
    { exactlyOne: [['path', 'url']] },
  )
  assert.deepEqual(problemsOf(bootstrap, 'url: https://a\n'), [])
  assert.deepEqual(problemsOf(bootstrap, 'retries: 1\n'), [
    'f.yaml:1:1: exactly one of path, url must be given; none of them is given',
  ])
  assert.deepEqual(problemsOf(bootstrap, 'url: a\npath: b\n'), [
    'f.yaml:1:1: exactly one of path, url must be given; path and url are given',
  ])
})

test('object() points from an inline secret to the key that names a file', () => {
  assert.deepEqual(problemsOf(schema, `${good}key_manager: { pin: "1234" }\n`), [
    'f.yaml:3:16: key_manager.pin: unknown key; a secret is never written here: put it into a file and give pin_file',
  ])
})

test('object() lists the allowed keys when none is near', () => {
  assert.deepEqual(problemsOf(object({ a: text().optional() }), 'completely: 1\n'), [
    'f.yaml:1:1: completely: unknown key; allowed are a',
  ])
  assert.deepEqual(problemsOf(object({}), 'completely: 1\n'), [
    'f.yaml:1:1: completely: unknown key; no keys are allowed here',
  ])
})

test('Schema.as() turns what the parser throws into a problem of the key', () => {
  const only = object({
    id: text().as((value) => {
      if (value !== 'x') throw new SyntaxError(`invalid id ${value}`)
      return 7
    }),
  })
  assert.equal(parseConfig(only, 'id: x\n', { file }).id, 7)
  assert.deepEqual(problemsOf(only, 'id: y\n'), ['f.yaml:1:5: id: invalid id y'])
})

test('map() checks keys and values', () => {
  const federation = object({
    federates_with: map(
      {
        name: 'trust domain',
        parse: (name) => {
          if (name !== 'b.org') throw new SyntaxError(`invalid trust domain ${name}`)
          return name
        },
      },
      object({ port: port() }),
    ),
  })
  const read = parseConfig(federation, 'federates_with: { b.org: { port: 1 } }\n', { file })
  assert.deepEqual([...read.federates_with], [['b.org', { port: 1 }]])
  assert.deepEqual(problemsOf(federation, 'federates_with: { B: { port: 0 } }\n'), [
    'f.yaml:1:19: federates_with.B: invalid trust domain B',
    'f.yaml:1:30: federates_with.B.port: is 0; it must be an integer from 1 to 65535 (TCP port)',
  ])
})

test('parseConfig() refuses what YAML would let through quietly', () => {
  const any = object({ a: text().optional(), b: text().optional() })
  const first = (yaml: string): string | undefined => problemsOf(any, yaml)[0]
  assert.match(first('a: x\na: y\n') ?? '', /^f.yaml:2:1: not valid YAML: the key is given twice/)
  assert.match(first('a: &x y\nb: *x\n') ?? '', /^f.yaml:2:4: b: an alias/)
  assert.match(first('a: !env HOME\n') ?? '', /the tag !env is not allowed/)
  assert.match(first('a: x\n---\na: y\n') ?? '', /^f.yaml:[23]:\d+: a second document/)
  assert.match(first('a: [') ?? '', /^f.yaml:1:\d+: not valid YAML/)
  assert.match(first('- a\n') ?? '', /^f.yaml:1:1: is a list; it must be a mapping/)
  assert.match(first('a:\n') ?? '', /^f.yaml:1:1: a: is nothing; it must be text/)
  assert.match(first('[[[['.repeat(20)) ?? '', /not valid YAML/)
  assert.match(first(`a: ${'['.repeat(40)}${']'.repeat(40)}`) ?? '', /nested deeper than 32/)
  assert.match(first(`a: ${'x'.repeat(1_048_576)}`) ?? '', /longer than 1048576/)
})

test('loadConfig() names the file that cannot be read', async () => {
  await assert.rejects(loadConfig(schema, '/nonexistent/server.yaml'), {
    name: 'ConfigError',
    message: /^\/nonexistent\/server.yaml:1:1: cannot read the configuration: ENOENT/,
  })
})
