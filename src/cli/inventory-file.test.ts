import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { State } from '#rpc/gen/assay/server/v1/inventory.ts'
import { parseInventory } from './inventory-file.ts'

const a = 'a'.repeat(64)
const b = 'b'.repeat(64)

const read = (text: string) =>
  parseInventory(text, 'f.csv').map(({ endorsementKeyHash, nodeName, state }) => [
    endorsementKeyHash,
    nodeName,
    state,
  ])

const problemsOf = (text: string): readonly string[] => {
  try {
    parseInventory(text, 'f.csv')
  } catch (error) {
    assert.ok(error instanceof AssayError)
    assert.equal(error.code, 'invalid-argument')
    return error.message.split('\n')
  }
  return assert.fail('it was read')
}

test('parseInventory() reads hash, name and state, allowed when absent', () => {
  assert.deepEqual(read(`${a},n1\n${b},n2,denied\n`), [
    [a, 'n1', State.ALLOWED],
    [b, 'n2', State.DENIED],
  ])
  assert.deepEqual(read(a), [[a, '', State.ALLOWED]])
})

test('parseInventory() skips heading, comments, empty lines and a byte order mark', () => {
  const text = `\ufeffendorsement_key_hash,node_name\n# rack 1\n\n   \n${a},n1\n`
  assert.deepEqual(read(text), [[a, 'n1', State.ALLOWED]])
  assert.deepEqual(read(''), [])
})

test('parseInventory() reads lines that end in CRLF, spaces around fields and capitals', () => {
  assert.deepEqual(read(` ${a.toUpperCase()} , n1 \r\n${b},n2\r\n`), [
    [a, 'n1', State.ALLOWED],
    [b, 'n2', State.ALLOWED],
  ])
})

test('parseInventory() reads quoted fields', () => {
  assert.deepEqual(read(`"${a}","rack 1, ""left"""\n${b}, "n2" ,"banned"`), [
    [a, 'rack 1, "left"', State.ALLOWED],
    [b, 'n2', State.BANNED],
  ])
})

test('parseInventory() names each wrong line and imports nothing', () => {
  const text = `${a},n1\nbeef,n2\n${a.toUpperCase()},n3\n${b},n4,maybe\n${b},"n5\n${b},1,allowed,x\n`
  assert.deepEqual(problemsOf(text), [
    'nothing was imported:',
    "f.csv:2: 'beef' is no endorsement key hash; it has 64 hex digits ('assay tpm fingerprint' prints it)",
    `f.csv:3: ${a.toUpperCase()} stands in line 1 already`,
    "f.csv:4: 'maybe' is no state; leave it out or write allowed, pending, denied, banned",
    'f.csv:5: its quotes do not match',
    'f.csv:6: it has 4 fields; write hash,node_name,state',
  ])
})

test('parseInventory() refuses a hash that is one digit short, long or no hex', () => {
  for (const wrong of [a.slice(1), `${a}a`, `${a.slice(1)}g`, '']) {
    assert.match(problemsOf(`${wrong},n1`)[1] ?? '', /is no endorsement key hash/, wrong)
  }
})

test('parseInventory() shows twenty problems and counts the others', () => {
  const lines = problemsOf('x\n'.repeat(25))
  assert.equal(lines.length, 22)
  assert.equal(lines.at(-1), 'and 5 more')
})

test('parseInventory() takes no longer than the text is long', () => {
  const started = performance.now()
  problemsOf(`${' '.repeat(200_000)}"\n`)
  problemsOf(`"${'""'.repeat(100_000)}\n`)
  assert.ok(performance.now() - started < 2000)
})
