import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseSpiffeId, type SpiffeId } from '#spiffe/spiffe-id.ts'
import { parseCalls } from './calls.ts'
import { type Grant, isCovered, Rights } from './rights.ts'

const id = (path: string): SpiffeId => parseSpiffeId(`spiffe://example.org${path}`)
const get = '/spire.api.server.entry.v1.Entry/GetEntry'
const ban = '/spire.api.server.agent.v1.Agent/BanAgent'
const grant = (by: string, names: readonly string[], prefixes?: readonly SpiffeId[]): Grant => ({
  by,
  calls: names.length === 0 ? 'all' : parseCalls(names),
  prefixes,
})

test('isCovered() goes by whole path segments of one trust domain', () => {
  const web = [id('/web')]
  for (const path of ['/web', '/web/x', '/web/x/y']) assert.ok(isCovered(id(path), web), path)
  for (const path of ['', '/webx', '/web-x', '/web.', '/Web', '/Web/x', '/we', '/db/web']) {
    assert.ok(!isCovered(id(path), web), path)
  }
  assert.ok(!isCovered(parseSpiffeId('spiffe://example.org.evil/web'), web))
  assert.ok(!isCovered(parseSpiffeId('spiffe://other.org/web'), [id('')]))
  assert.ok(isCovered(id('/db'), [id('')]))
  assert.ok(!isCovered(id('/web'), []))
  assert.ok(isCovered(id('/web'), undefined))
})

test('Rights add up, each grant with its own prefixes', () => {
  const rights = new Rights('alice', [
    grant('a', ['entries'], [id('/web')]),
    grant('b', ['entries', 'nodes'], [id('/db')]),
    grant('c', ['read']),
  ])
  assert.deepEqual(rights.permission(get), { by: 'c', prefixes: undefined })
  assert.deepEqual(rights.permission(ban), { by: 'b', prefixes: [id('/db')] })
  assert.deepEqual(rights.permission('/spire.api.server.entry.v1.Entry/BatchDeleteEntry'), {
    by: 'a, b',
    prefixes: [id('/web'), id('/db')],
  })
  assert.equal(rights.permission('/spire.api.server.svid.v1.SVID/MintJWTSVID'), undefined)
  assert.equal(rights.areAll, false)
})

test('Rights are all only without any limit, and reach methods nobody has classified only then', () => {
  const unknown = '/x.Y/Z'
  assert.ok(new Rights('a', [grant('a', [])]).areAll)
  assert.ok(new Rights('a', [grant('a', [])]).permission(unknown))
  const narrowed = new Rights('a', [grant('a', [], [id('')])])
  assert.equal(narrowed.areAll, false)
  assert.equal(narrowed.permission(unknown), undefined)
  assert.ok(narrowed.isTooNarrowFor(unknown))
  assert.equal(new Rights('a', [grant('a', ['entries'])]).permission(unknown), undefined)
  assert.ok(new Rights('a', []).areNone)
})
