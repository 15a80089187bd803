import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseManifest } from './manifest.ts'

const sha256 = 'ab'.repeat(32)
const good = {
  format: 1,
  program: 'assay-server',
  version: '1.0.0',
  schema_version: 1,
  trust_domain: 'example.org',
  server_id: '00000000-0000-4000-8000-000000000000',
  created_at: '2026-01-01T00:00:00Z',
  revision: '7',
  bundles: [{ trust_domain: 'example.org', sequence_number: '2' }],
  keys_in: 'memory',
  keys: [{ id: 'x509-A', state: 'active', purpose: 'x509' }],
  files: [
    { name: 'server-id', bytes: 37, sha256 },
    { name: 'datastore.sqlite3', bytes: 4096, sha256 },
  ],
}

test('parseManifest() reads what a server writes, and what a later one adds', () => {
  const manifest = parseManifest(JSON.stringify({ ...good, later: 1 }))
  assert.equal(manifest.trustDomain, 'example.org')
  assert.equal(manifest.createdAt.epochMilliseconds, 1_767_225_600_000)
  assert.deepEqual(manifest.files, good.files)
})

test('parseManifest() refuses what it could misunderstand', () => {
  const [name, datastore] = good.files
  const wrong: readonly (readonly [object, RegExp])[] = [
    [{ program: 'assay-agent' }, /no backup of a server/],
    [{ format: 2, version: '9.0' }, /has the format 2 of assay 9\.0; this one reads format 1/],
    [{ files: [name] }, /its files are not server-id and datastore\.sqlite3/],
    [{ files: [datastore, name] }, /its files are not/],
    [{ files: [name, datastore, { ...name, name: '../etc/passwd' }] }, /wrong: files/],
    [{ files: [name, { ...datastore, bytes: -1 }] }, /wrong: bytes/],
    [{ files: [name, { ...datastore, sha256: 'AB' }] }, /wrong: sha256/],
    [{ server_id: '../../x' }, /wrong: server_id/],
    [{ created_at: 'yesterday' }, /wrong: created_at/],
    [{ schema_version: '1' }, /wrong: schema_version/],
    [{ trust_domain: 'Example' }, /trust domain/],
    [{ keys: {} }, /wrong: keys/],
  ]
  for (const [change, message] of wrong) {
    assert.throws(
      () => parseManifest(JSON.stringify({ ...good, ...change })),
      (error) => error instanceof SyntaxError && message.test(error.message),
      JSON.stringify(change),
    )
  }
  for (const text of ['', '[]', 'null', '{']) assert.throws(() => parseManifest(text), SyntaxError)
})
