import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseSelector, selector, selectorSet, selectorType, selectorValue } from './selector.ts'

test('parseSelector() splits at the first colon', () => {
  const parsed = parseSelector('k8s:label:app:web')
  assert.equal(selectorType(parsed), 'k8s')
  assert.equal(selectorValue(parsed), 'label:app:web')
  assert.equal(selector('k8s', 'label:app:web'), parsed)
})

for (const text of ['', 'unix', ':', 'unix:', ':uid:0']) {
  test(`parseSelector() refuses ${JSON.stringify(text)}`, () => {
    assert.throws(() => parseSelector(text), {
      name: 'SyntaxError',
      message: `invalid selector ${JSON.stringify(text)}: it must be type:value, and the type has no colon`,
    })
  })
}

test('selector() refuses a type with a colon, which would read back as another', () => {
  assert.throws(() => selector('unix:uid', '0'), SyntaxError)
  assert.throws(() => selector('', '0'), SyntaxError)
  assert.throws(() => selector('unix', ''), SyntaxError)
})

test('selectorSet() has one form for a set', () => {
  const [a, b] = [parseSelector('unix:uid:1'), parseSelector('unix:gid:1')]
  assert.deepEqual(selectorSet([a, b, a]), [b, a])
  assert.deepEqual(selectorSet([b, a]), selectorSet([a, b]))
  assert.deepEqual(selectorSet([]), [])
})
