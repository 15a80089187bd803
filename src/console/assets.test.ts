import assert from 'node:assert/strict'
import { globSync } from 'node:fs'
import { test } from 'node:test'
import { loadAssets } from './assets.ts'

test('loadAssets() has every file of ui/, and each says what it is', () => {
  const assets = loadAssets()
  const directory = new URL('./ui/', import.meta.url).pathname
  const files = globSync('*.{html,css,js,svg}', { cwd: directory })
  assert.ok(files.length > 10)
  for (const file of files) {
    const asset = assets.get(file === 'index.html' ? '/' : `/${file}`)
    assert.ok(asset !== undefined && asset.body.length > 0, file)
  }
  assert.equal(assets.size, files.length + 2, 'and the chart library')
  assert.match(new TextDecoder().decode(assets.get('/')?.body), /^<!doctype html>/)
})

test('the page names no address but its own', () => {
  for (const [path, { body }] of loadAssets()) {
    if (path.startsWith('/uplot/')) continue
    const text = new TextDecoder().decode(body).replaceAll('http://www.w3.org/2000/svg', '')
    assert.doesNotMatch(text, /https?:\/\/|innerHTML|document\.write/, path)
  }
})
