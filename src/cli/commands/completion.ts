import { type Command, printText, UsageError } from '../command.ts'

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
  fish: `complete -c assay -a '(assay complete -- (commandline -opc)[2..] 2>/dev/null)'
`,
} as const

const completion: Command = {
  name: 'completion',
  summary: 'a script that makes bash, zsh or fish complete assay',
  positionals: 'SHELL',
  options: [],
  details: `
  assay completion bash > /etc/bash_completion.d/assay
  assay completion zsh  > /usr/share/zsh/site-functions/_assay
  assay completion fish > /usr/share/fish/vendor_completions.d/assay.fish`,
  async run(context) {
    const [shell = ''] = context.positionals
    if (!Object.hasOwn(completionScripts, shell)) {
      throw new UsageError(
        `'assay completion' needs a SHELL: ${Object.keys(completionScripts).join(', ')}`,
      )
    }
    printText(context, completionScripts[shell as keyof typeof completionScripts].trimEnd())
  },
}

export const commands: readonly Command[] = [completion]
