import { type Command, commonOptions } from './command.ts'

/** What may follow `words`, the words after `assay` that are complete already. */
export function completions(
  commands: readonly Command[],
  words: readonly string[],
): readonly string[] {
  const command = commands.find(({ name }) => {
    const parts = name.split(' ')
    return parts.every((part, index) => part === words[index])
  })
  if (command !== undefined) {
    const given = new Set(words)
    return [...command.options, ...commonOptions]
      .filter(({ name, multiple }) => multiple === true || !given.has(`--${name}`))
      .map(({ name }) => `--${name}`)
  }
  const next = commands
    .map(({ name }) => name.split(' '))
    .filter((parts) => words.every((word, index) => parts[index] === word))
    .map((parts) => parts[words.length])
  return [...new Set(next.filter((part) => part !== undefined))]
}

/**
 * The script that makes a shell complete `assay`. It asks `assay complete` at each tab, so it never falls behind
 * the commands there are.
 */
export const completionScripts = {
  bash: `_assay() {
  local IFS=$'\\n'
  COMPREPLY=($(compgen -W "$(assay complete -- "\${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)" -- "\${COMP_WORDS[COMP_CWORD]}"))
  [ \${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _assay assay
`,
  zsh: `#compdef assay
_assay() {
  local -a candidates
  candidates=(\${(f)"$(assay complete -- "\${(@)words[2,CURRENT-1]}" 2>/dev/null)"})
  (( \${#candidates} )) && compadd -- $candidates || _files
}
compdef _assay assay
`,
  fish: `complete -c assay -f -a '(assay complete -- (commandline -opc)[2..] 2>/dev/null)'
`,
} as const
