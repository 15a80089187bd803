import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseCertificate } from '#pki/certificate.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { openAuthorities, trustDomain } from '../../../test/support/authorities.ts'
import { keepExpiredSeconds, prunedBundle } from './prune-bundle.ts'

const { manager } = await openAuthorities()
const certificate = manager.states('x509')[0]?.content ?? new Uint8Array()
const endSeconds = parseCertificate(certificate).notAfterSeconds
await manager.prepare('x509')
const younger = manager.states('x509')[1]?.content ?? new Uint8Array()

const jwt = (keyId: string, expiresAtSeconds: number) => ({
  keyId,
  expiresAtSeconds,
  publicKey: new Uint8Array(),
  tainted: false,
})
const bundle: Bundle = {
  trustDomain,
  x509Authorities: [
    { certificate, tainted: false },
    { certificate: younger, tainted: false },
  ],
  jwtAuthorities: [jwt('old', endSeconds), jwt('young', endSeconds + 10), jwt('endless', 0)],
  refreshHintSeconds: 0,
  sequenceNumber: 1n,
}

test('prunedBundle() keeps authorities for a day after their end', () => {
  assert.deepEqual(prunedBundle(bundle, endSeconds + keepExpiredSeconds), bundle)
})

test('prunedBundle() drops what expired longer ago, and keeps keys without an end', () => {
  const pruned = prunedBundle(bundle, endSeconds + keepExpiredSeconds + 1)
  assert.deepEqual(
    pruned.jwtAuthorities.map(({ keyId }) => keyId),
    ['young', 'endless'],
  )
})

test('prunedBundle() never leaves a bundle without authorities', () => {
  const only = { ...bundle, jwtAuthorities: [jwt('old', endSeconds)] }
  assert.deepEqual(prunedBundle(only, endSeconds * 2), only)
})
