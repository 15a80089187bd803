import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Change, changedLines, editConfig, valueIn } from './edit-config.ts'

const text = `# The trust domain.
#trust_domain: example.org

node_attestors:
  tpm: { allow: inventory }   # who may join
bind_port: 8081
`

test('editConfig() sets keys and keeps comments, order and everything else', () => {
  const edited = editConfig(text, [
    [['trust_domain'], 'example.org'],
    [['bind_port'], 8081],
    [['node_attestors', 'tpm', 'endorsement_ca'], '/ca'],
    [['key_manager'], { pkcs11: { module: '/m.so', token_label: 'a b' } }],
  ])
  for (const wanted of [
    '# The trust domain.',
    '#trust_domain: example.org',
    'tpm: { allow: inventory, endorsement_ca: /ca }',
    '# who may join',
    '\ntrust_domain: example.org\n',
    'key_manager: { pkcs11: { module: /m.so, token_label: a b } }',
  ]) {
    assert.ok(edited.includes(wanted), `${wanted}\n---\n${edited}`)
  }
  assert.equal(editConfig(edited, [[['trust_domain'], 'example.org']]), edited)
  const reordered: Change = [['key_manager'], { pkcs11: { token_label: 'a b', module: '/m.so' } }]
  assert.equal(editConfig(edited, [reordered]), edited)
})

test('editConfig() takes a key away with its line, and no comment', () => {
  const without = '# head\n\n# why\nsigner_socket_path: /s\n# next\na: 1\n'
  const edited = editConfig(without, [[['signer_socket_path'], undefined]])
  assert.equal(edited, '# head\n\n# why\n# next\na: 1\n')
  assert.equal(editConfig(edited, [[['signer_socket_path'], undefined]]), edited)
})

test('editConfig() begins an empty file, and refuses what is no mapping', () => {
  assert.equal(
    editConfig('', [[['a', 'b'], 1]]),
    'a: { b: 1 }\n'.replace('{ b: 1 }', '\n  b: 1').replace(': \n', ':\n'),
  )
  for (const wrong of ['- a\n', 'a: [\n', 'word\n']) {
    assert.throws(() => editConfig(wrong, []), SyntaxError, wrong)
  }
})

test('changedLines() shows what went and what came', () => {
  assert.deepEqual(changedLines('a\nb\nc', 'a\nx\nc\nd'), ['- b', '+ x', '+ d'])
  assert.deepEqual(changedLines('a', 'a'), [])
})

test('valueIn() is what the text says at a path, and nothing where it says nothing or is not YAML', () => {
  assert.deepEqual(valueIn(text, ['node_attestors', 'tpm']), { allow: 'inventory' })
  for (const path of [['trust_domain'], ['bind_port', 'no']])
    assert.equal(valueIn(text, path), undefined)
  assert.equal(valueIn('a: [', ['a']), undefined)
})
