import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { utf8Text } from '#base/bytes.ts'
import { JoinTokenNodeAttestor } from './join-token.ts'

const root = mkdtempSync(join(tmpdir(), 'assay-token-'))
after(() => rmSync(root, { recursive: true }))

async function payloadOf(attestor: JoinTokenNodeAttestor): Promise<string> {
  await using attestation = await attestor.attest()
  return utf8Text(attestation.payload)
}

test('JoinTokenNodeAttestor.attest() shows the token', async () => {
  assert.equal(await payloadOf(new JoinTokenNodeAttestor({ token: 'abc' })), 'abc')
})

test('JoinTokenNodeAttestor.attest() reads its file at each attempt, without the space around the token', async () => {
  const tokenFile = join(root, 'token')
  const attestor = new JoinTokenNodeAttestor({ tokenFile })
  await assert.rejects(attestor.attest(), { reason: 'join-token-missing' })
  assert.equal(attestor.status().state, 'failed')
  writeFileSync(tokenFile, ' \n')
  await assert.rejects(attestor.attest(), { reason: 'join-token-missing' })
  writeFileSync(tokenFile, '\nabc \n')
  assert.equal(await payloadOf(attestor), 'abc')
  assert.deepEqual(attestor.status(), { state: 'ok', detail: '' })
})

test('JoinTokenNodeAttestor answers no challenge', async () => {
  await using attestation = await new JoinTokenNodeAttestor({ token: 'abc' }).attest()
  await assert.rejects(attestation.respond(new Uint8Array(1)), { code: 'internal' })
})
