import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SystemRandom } from '#base/random.ts'
import { activate, softwareKey } from '../../../test/support/forged-tpm.ts'
import { nameOf } from '../wire/public-area.ts'
import { attestationKeyTemplate, endorsementKeyProfiles } from '../wire/templates.ts'
import { makeCredential } from './credential.ts'

const random = new SystemRandom()
const name = nameOf(attestationKeyTemplate)

for (const profile of endorsementKeyProfiles) {
  const { template } = profile
  if (template.type !== 'ecc') continue
  test(`makeCredential() hides the secret for the holder of ${profile.name} and the name`, () => {
    const key = softwareKey(template)
    const secret = random.bytes(32)
    const credential = makeCredential(key.area, name, { secret, random })
    assert.deepEqual(activate(key, name, credential), secret)
    assert.throws(() => activate(key, name.with(5, 0), credential), /not for this key/)
    assert.throws(() => activate(softwareKey(template), name, credential), /not for this key/)
  })
}

test('makeCredential() refuses keys that cannot decrypt, and secrets longer than a digest', () => {
  const secret = random.bytes(32)
  const { area } = softwareKey(attestationKeyTemplate)
  assert.throws(() => makeCredential(area, name, { secret, random }), /not a storage key/)
  const [profile] = endorsementKeyProfiles
  assert.ok(profile?.template.type === 'ecc')
  const key = softwareKey(profile.template)
  assert.throws(
    () => makeCredential(key.area, name, { secret: random.bytes(33), random }),
    /33 bytes: 32 are the limit/,
  )
})
